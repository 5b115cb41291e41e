"""VIP-ANT: what must be downloaded, and every experiment of the paper, in order of need."""

from __future__ import annotations

from pivot.reproduce.making import CONFIGS, beyond, curate, prepare, pretrain, tune
from pivot.reproduce.scores import few_shot, retrieval, supervised, zero_shot
from pivot.reproduce.table import DataSet, Paper, by_name

DATA = by_name(
    DataSet("AudioSet", "downloads/audioset",
            "the segment lists and ontology.json of research.google.com/audioset, and the "
            "videos they name in videos/, as YOUTUBE_ID.mp4"),
    DataSet("AudioCaps", "downloads/audiocaps",
            "train.csv, val.csv, test.csv of github.com/cdjkim/audiocaps, and test_860.txt, "
            "the ids of the authors' test clips (or of yours, one a line)"),
    DataSet("Clotho", "downloads/clotho",
            "the evaluation sounds and caption files of zenodo.org/record/4783391"),
    DataSet("ESC-50", "downloads/ESC-50-master", "github.com/karolpiczak/ESC-50, unpacked"),
    DataSet("UrbanSound8K", "downloads/UrbanSound8K",
            "urbansounddataset.weebly.com, unpacked"),
    DataSet("caption pools", "downloads/pools",
            "ac/: AudioCaps's train.csv and clotho_captions_development.csv; vc/: MSCOCO's "
            "captions_train2014.json and captions_val2014.json of cocodataset.org"),
    DataSet("released checkpoints", "downloads/vip_ant",
            "va.pth: a checkpoint of github.com/zhaoyanpeng/vipant"),
)  # fmt: skip

GROUPS = {
    "Data sets (Table 6)": prepare(),
    "Pre-training (3.2, Figure 5)": pretrain(),
    "Captions to pairs (3.3, Table 2)": curate(),
    "Fine-tuning (3.3, Table 5, Appendix E)": tune(),
    "Retrieval (Tables 3 and 8, Figure 10)": retrieval(),
    "Zero-shot classification (Table 4, Figures 6 and 12)": zero_shot(),
    "Few gold pairs (4.2, Figure 7)": few_shot(),
    "Supervised classification (Table 7, Appendix C)": supervised(),
    "The authors' notes and files": beyond(),
}
PAPER = Paper(CONFIGS, DATA, GROUPS)
