"""What a person does with a damaged journal: look at it, and book what names nobody, once, as our loss."""

from pathlib import Path

import pytest

from shipping.damaged import Ledger, dead, flip, mine, opened, settings_in
from tokenworks.base.config import Settings
from tokenworks.base.journal import JournalFault, damaged_journals
from tokenworks.core.journal import Closing, Opening
from tokenworks.shipping import salvage
from tokenworks.shipping.keeping import keep
from tokenworks.shipping.succession import succeed


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Journals below the folder of this test."""
    return settings_in(tmp_path)


async def shipped(ledger: Ledger, settings: Settings) -> None:
    """What was salvaged is shipped at once by a worker of its own name; others leave a young journal alone at first."""
    await succeed(ledger, settings, settings.journal_dir / "salvage" / "mine")


async def damaged(settings: Settings, *numbers: int) -> Ledger:
    """A repaired journal whose openings with these numbers were lost; the ledger that has the rest."""
    ledger = opened()
    folder, positions = dead(settings, "jrn_a", 1, 5)
    for number in numbers:
        flip(folder, positions[2 + 3 * number])
    await succeed(ledger, settings, mine(settings))
    return ledger


async def test_what_names_nobody_is_booked_once(settings: Settings) -> None:
    ledger = await damaged(settings, 1, 3)
    found = salvage.damage(settings.journal_dir, "jrn_a")
    assert (len(found.holes), found.worker, found.frames) == (2, "gw-0", 15)
    assert [sum(charge.amount for charge in each.closing.charges) for each in found.unproven] == [10, 10]
    assert salvage.book(settings, "jrn_a") == 2
    await shipped(ledger, settings)
    assert ledger.final == {"jrn_a", "slv_a"}
    entries = ledger.entries("slv_a")
    openings = [entry for entry in entries if isinstance(entry, Opening)]
    assert [(each.legal_entity_id, each.billing_account_id, each.key_id) for each in openings] == [("le_1", "", "")] * 2
    closings = [entry for entry in entries if isinstance(entry, Closing)]
    assert [(each.flags, each.charges[0].lease_id, each.charges[0].amount) for each in closings] == [
        (("salvaged",), 0, 10)
    ] * 2
    with pytest.raises(JournalFault, match="there is no damaged journal"):
        salvage.book(settings, "jrn_a")
    (aside,) = [folder for folder in (settings.journal_dir / "gw-0").iterdir() if folder.suffix]
    assert aside.name == "jrn_a.salvaged"
    aside.rename(aside.with_suffix(".damaged"))
    assert salvage.book(settings, "jrn_a") == 2, "once more, after a crash"
    before = ledger.posted["slv_a"]
    await shipped(ledger, settings)
    assert ledger.posted["slv_a"] == before


async def test_states_of_journals_and_the_alarm(settings: Settings) -> None:
    ledger = await damaged(settings, 1)
    await keep(ledger, settings, mine(settings))
    assert ledger.reports[-1].damaged == ("jrn_a",)
    shown = [(each.journal_id, each.state) for each in salvage.standings(settings.journal_dir)]
    assert shown == [("jrn_a", "finished"), ("jrn_a", "damaged")]
    salvage.book(settings, "jrn_a")
    await keep(ledger, settings, mine(settings))
    assert ledger.reports[-1].damaged == ()
    states = [each.state for each in salvage.standings(settings.journal_dir)]
    assert states == ["finished", "salvaged", "dead"]


async def test_with_nothing_to_book_the_alarm_just_ends(settings: Settings) -> None:
    ledger = opened()
    folder, positions = dead(settings, "jrn_a", 1, 5)
    flip(folder, positions[3])
    await succeed(ledger, settings, mine(settings))
    assert salvage.damage(settings.journal_dir, "jrn_a").unproven == ()
    assert salvage.book(settings, "jrn_a") == 0
    assert damaged_journals(settings.journal_dir) == []
    assert not (settings.journal_dir / "salvage").exists()


async def test_whose_loss_it_is_must_be_known(settings: Settings) -> None:
    ledger = opened()
    folder, positions = dead(settings, "jrn_a", 1, 1)
    flip(folder, positions[2])
    await succeed(ledger, settings, mine(settings))
    with pytest.raises(JournalFault, match="legal entity"):
        salvage.book(settings, "jrn_a")
    assert salvage.book(settings, "jrn_a", "le_7") == 1
    await shipped(ledger, settings)
    (opening,) = [entry for entry in ledger.entries("slv_a") if isinstance(entry, Opening)]
    assert opening.legal_entity_id == "le_7"
