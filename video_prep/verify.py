"""prepare-frames verify: hashes a prepared folder again, and redoes what is damaged in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.files import remove_asides
from video_prep.index import Clip
from video_prep.keys import shard_name
from video_prep.prepare import exit_status, redo
from video_prep.report.page import shown, size_text
from video_prep.report.record import FILES, MANIFEST
from video_prep.running.plan import INPUTS, PLAN, Plan, load_plan, sizes_of
from video_prep.settings import Verify
from video_prep.storage.damage import SHARD, Damage, Shard, hash_all, look
from video_prep.storage.rebuild import rebuild
from video_prep.storage.remote import refuse_url
from video_prep.storage.seals import read_sealed

_NAMED = 5  # hurt clips named in a line


def run(settings: Verify) -> int:
    """Check a prepared folder and redo what is damaged; returns the exit status.

    With `check_only` nothing is changed, and the status is 1 where something is damaged. Raises
    UserError, with nothing changed, where an input that must be redone is no longer what it was.
    """
    refuse_url(settings.out)
    out = Path(settings.out)
    plan = _plan_of(out)
    found = look(out, plan, settings.worker_count())
    for line in _lines(plan, found):
        print(line)
    for line in _notes(out, plan):
        print(line)
    if found.whole:
        if not settings.check_only:
            remove_asides(out)
        print(_whole_line(found))
        return 0
    if settings.check_only:
        print(f"damaged: {_damage(found)}; run again without --check-only to redo it")
        return 1
    _refuse_changed_inputs(plan, found.damaged)
    counts = _mend(out, plan, found, settings)
    return exit_status(counts, settings)


def _mend(out: Path, plan: Plan, found: Damage, settings: Verify) -> dict[str, Any]:
    """Redo what is damaged, hash that again, and say what came of it; returns the counts."""
    before = (read_sealed(out / MANIFEST) or {}).get("fingerprint")
    for path in found.foreign:
        path.unlink(missing_ok=True)
    numbers = [shard.number for shard in found.damaged]
    rebuild(out, plan, [shard.number for shard in found.damaged if shard.lost_index])
    counts = redo(out, settings, [s.number for s in found.damaged if not s.lost_index])
    again = [shard.number for shard in hash_all(out, plan, numbers, 1) if shard.what]
    if again:
        raise UserError(
            f"{out / shard_name(again[0])}.tar is damaged again just after it was written; "
            "check the disk"
        )
    clips = sum(len(shard.hurt) for shard in found.damaged)
    print(f"mended: {_damage(found)}; clips prepared again: {clips}, the others are kept")
    after = (read_sealed(out / MANIFEST) or {}).get("fingerprint")
    if before not in {None, after}:
        print(
            f"the content is not what it was (fingerprint {after}, not {before}), since other "
            "versions of the decoders are at work here; embed it again"
        )
    return counts


def _plan_of(out: Path) -> Plan:
    """The folder's plan; raises UserError where it is no prepared folder or not a finished one."""
    if not out.is_dir() or not (out / PLAN).exists():
        raise UserError(f"{out} is no prepared folder (no {PLAN}); give one made by a prepare run")
    plan = load_plan(out)
    done = sum((out / f"{shard_name(k)}.json").exists() for k in range(plan.num_shards))
    if done < plan.num_shards and not (out / MANIFEST).exists():
        raise UserError(
            f"{out} is not finished ({done} of {plan.num_shards} shards are done); "
            "run its prepare command again"
        )
    return plan


# ---- saying --------------------------------------------------------------------------------


def _lines(plan: Plan, found: Damage) -> Iterator[str]:
    for shard in found.damaged:
        clips, all_of_it = shard.hurt, len(plan.shard(shard.number))
        names = ", ".join(shown(plan.clips[i].id) for i in clips[:_NAMED])
        more = f" and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
        hurt = f"{len(clips)} of {all_of_it} clips are hurt: {names}{more}"
        yield f"{shard_name(shard.number)}: {shard.what}; {hurt if clips else 'no clip is hurt'}"
    yield from found.record
    for path in found.foreign:
        yield f"{path.name}: the plan has {plan.num_shards} shards, this one is not of it"


def _notes(out: Path, plan: Plan) -> Iterator[str]:
    """Files that do not belong to the folder and do no harm."""
    ours = {PLAN, INPUTS, MANIFEST, *FILES}
    for path in sorted(out.iterdir()):
        if path.name.startswith((".tmp-", ".claim-", ".poison")):
            yield f"{path.name}: left over from a run that was stopped (harmless)"
        elif path.name not in ours and not SHARD.fullmatch(path.name):
            yield f"{shown(path.name)}: not made by this command (left alone)"


def _whole_line(found: Damage) -> str:
    size = sum(shard.bytes for shard in found.shards)
    rate = size / max(found.seconds, 1e-9)
    count = len(found.shards)
    return (
        f"whole: {count} shard{'s' * (count != 1)}, {size_text(size)} hashed in "
        f"{found.seconds:.1f} s ({size_text(round(rate))}/s)"
    )


def _damage(found: Damage) -> str:
    record, foreign = len(found.record), len(found.foreign)
    parts = [
        f"{len(found.damaged)} of {len(found.shards)} shards" if found.damaged else "",
        f"{record} file{'s' * (record != 1)} of the record" if record else "",
        f"{foreign} file{'s' * (foreign != 1)} of foreign shards" if foreign else "",
    ]
    return ", ".join(filter(None, parts))


# ---- before mending ------------------------------------------------------------------------


def _refuse_changed_inputs(plan: Plan, damaged: list[Shard]) -> None:
    """Refuse to redo a clip whose file is not what it was: it would not be the same clip."""
    needed = [i for shard in damaged for i in shard.hurt]
    clips = [plan.clips[i] for i in needed]
    for i, clip, now in zip(needed, clips, sizes_of(clips), strict=True):
        for path, size, before in zip(_files(clip), now, plan.sizes[i], strict=True):
            if size != before:
                raise UserError(
                    f"{path} {_change(before, size)} and clip {clip.id!r} of "
                    f"{shard_name(i // plan.shard_size)} must be prepared again; nothing was "
                    "changed: bring the file back and run verify again"
                )


def _files(clip: Clip) -> tuple[Path, ...]:
    return (clip.path,) if clip.fault else (clip.path, *clip.frames)


def _change(before: int, now: int) -> str:
    if now < 0:
        return "is gone"
    return f"has {now} bytes, not {before}," if before >= 0 else "was not there before"
