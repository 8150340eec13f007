"""A repair that a crash interrupts, or that another worker of the disk begins too, loses nothing that was proven."""

from pathlib import Path

from shipping.damaged import SEGMENT_BYTES, dead, flip, mine, opened, settings_in
from tokenworks.base.journal import Disk, damaged_journals
from tokenworks.shipping.repair import repair
from tokenworks.shipping.succession import succeed


def repaired(folder: Path, disk: Disk) -> Path:
    return repair(folder, folder.stat().st_ino, 0, 0, SEGMENT_BYTES, disk)[0]


async def test_a_crash_before_the_repaired_journal_is_put_back_is_made_good_by_the_next_worker(tmp_path: Path) -> None:
    settings, office = settings_in(tmp_path), opened()
    folder, positions = dead(settings, "jrn_a", 1, 20)
    flip(folder, positions[2])
    repaired(folder, Disk())
    work = settings.journal_dir / ".repair" / "gw-0" / "jrn_a"
    work.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(work)  # as it stands between setting aside and putting back
    await succeed(office, settings, mine(settings))
    assert office.final == {"jrn_a"}
    assert len(office.closings("jrn_a")) == 19


async def test_two_workers_that_find_the_same_damage_at_the_same_time(tmp_path: Path) -> None:
    """After a power failure both go through the same journals. Here the other one is quicker to lock it for repair."""
    settings, office = settings_in(tmp_path), opened()
    folder, positions = dead(settings, "jrn_a", 1, 20)
    flip(folder, positions[2])
    quicker: list[Path] = []
    locks = iter(range(1_000))

    def lock(path: Path) -> int:
        if path == folder and next(locks) == 1:  # the first lock was to read it
            quicker.append(repaired(folder, Disk()))
        return Disk().lock(path)

    await succeed(office, settings, mine(settings), Disk(lock=lock))
    await succeed(office, settings, mine(settings))
    assert damaged_journals(settings.journal_dir) == quicker
    assert office.final == {"jrn_a"}
    assert len(office.closings("jrn_a")) == 19
