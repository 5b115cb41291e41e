"""AST: transformers' own classifier as the second implementation, its names, its positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import ASTConfig, ASTForAudioClassification

from pivot.encoders.ast_encoder import Ast, published
from pivot.errors import ModelError
from pivot.settings.encoders import AstSettings
from pivot.settings.front_ends import AudioSettings
from tests import encoder_checks as checks
from tests.encoder_checks import far, sounds

SMALL = AstSettings(width=32, depth=2, heads=2)
AUDIO = AudioSettings(num_mel_bins=48, num_frames=100)  # 4 rows x 9 columns
TABLE = "body.embeddings.position_embeddings"


def small() -> Ast:
    encoder = Ast.start(None, SMALL, AUDIO, 1)
    generator = torch.Generator().manual_seed(2)
    for table in encoder.body.embeddings.parameters():  # transformers starts tokens at 0
        torch.nn.init.normal_(table, std=0.5, generator=generator)
    return encoder


@pytest.fixture(scope="module")
def classifier() -> ASTForAudioClassification:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = ASTConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=256
        )
        model = ASTForAudioClassification(config).eval()
        torch.nn.init.normal_(model.audio_spectrogram_transformer.embeddings.position_embeddings)
    return model


def test_features_of_the_classifier_from_its_file_and_from_its_modules(
    classifier: ASTForAudioClassification, tmp_path: Path
) -> None:
    """Files have other names than modules; a bare ASTModel has no prefix."""
    classifier.save_pretrained(tmp_path)
    body = classifier.audio_spectrogram_transformer
    files = load_file(tmp_path / "model.safetensors")
    layer = "audio_spectrogram_transformer.encoder.layer.1"
    assert f"{layer}.attention.attention.query.weight" in files
    x = torch.randn(2, 1024, 128, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = body(x)
    for weights in (files, classifier.state_dict(), body.state_dict()):
        settings, own, left = published(weights)
        assert settings == AstSettings(width=64, depth=2, heads=1)
        assert all(name.startswith("classifier.") for name in left)
        assert len(left) == (0 if "layernorm.weight" in weights else 4)
        encoder = Ast.from_weights(own, {}, settings, AudioSettings(num_frames=1024)).eval()
        with torch.no_grad():
            assert far(encoder(x), expected.pooler_output) <= 1e-6
            tokens = encoder.embed_tokens(x)
        assert encoder.grid == (101, 12)
        grid = expected.last_hidden_state[:, 2:].unflatten(1, (12, 101))  # frequency by frequency
        assert far(tokens[:, 12 * 5 + 3], grid[:, 3, 5]) <= 1e-6


def test_counts_of_the_published_size() -> None:
    """203 tensors with the classifier of 527 labels; 86.6 M values, as AST's repository says."""
    with torch.device("meta"):
        model = ASTForAudioClassification(ASTConfig(num_labels=527))
    weights = model.state_dict()
    assert len(weights) == 203
    assert sum(value.numel() for value in weights.values()) / 1e6 == pytest.approx(86.6, abs=0.05)
    settings, own, left = published(weights)
    assert settings == AstSettings() and len(own) == 199 and len(left) == 4


def test_positions_of_other_windows() -> None:
    encoder = small().eval()
    table = encoder.state_dict()[TABLE]
    x = sounds(encoder, 2, 60)  # 5 of 9 columns
    short, long = encoder.resized(60), encoder.resized(180)
    assert (short.grid, long.grid) == ((5, 4), (17, 4))
    assert torch.equal(short(x), encoder(x))
    assert torch.equal(short.window_tokens(x), encoder.window_tokens(x))
    first = table[:, 2:].unflatten(1, (4, 9))[:, :, :5].flatten(1, 2)
    assert torch.equal(short.state_dict()[TABLE], torch.cat([table[:, :2], first], dim=1))
    wide = table[0, 2:].unflatten(0, (4, 9))  # each row of frequency by itself
    rows = [F.interpolate(row.T[None], size=17, mode="linear")[0].T for row in wide]
    assert far(long.state_dict()[TABLE], torch.cat([table[0, :2], *rows])[None]) <= 1e-6
    long(sounds(long, 1))


def test_what_every_encoder_keeps() -> None:
    checks.check_all(small)


def test_refuses(classifier: ASTForAudioClassification) -> None:
    prefix = "audio_spectrogram_transformer."
    weights = classifier.audio_spectrogram_transformer.state_dict()
    checks.check_refusals(published, weights, "layers.1.mlp.fc2.weight", "embeddings.cls_token")
    weights = {prefix + name: value for name, value in weights.items()}
    name = f"{prefix}embeddings.position_embeddings"
    checks.check_refusals(published, weights, name, "embeddings.cls_token")
    with pytest.raises(ModelError, match=r"should be \(1, 1214, 64\), the file has \(1, 147, 64\)"):
        published(weights | {name: torch.zeros(1, 147, 64)})
    with pytest.raises(ModelError, match="3 heads do not divide the ast encoder's width 32"):
        Ast(SMALL.model_copy(update={"heads": 3}), AUDIO)
    with pytest.raises(ModelError, match="9 frames x 48 mel bins is smaller than one patch"):
        small()(sounds(small(), 1, 9))
