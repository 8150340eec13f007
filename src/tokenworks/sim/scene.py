"""The scene of a run: customers with their packages and keys, models, suppliers and prices; made from the seed.

Amounts are small on purpose: in most runs some account comes to its end, where bugs in the sharing of a rest live.
"""

import hashlib

import msgspec

from tokenworks.base.config import Settings
from tokenworks.core.bucket import Bucket
from tokenworks.core.snapshot import Catalog, Endpoint, Key, Model
from tokenworks.core.tariff import Rate, Tariff
from tokenworks.sim.chance import Chance
from tokenworks.sim.commands import Sell
from tokenworks.sim.plan import SECOND_NS

FAR_NS = 1 << 62
MODELS = ("m-small", "m-large")
ENTITIES = ("le-north", "le-south")
PURCHASES = {
    "buy-a@1": Rate(300_000_000, 30_000_000, 375_000_000, 600_000_000, 600_000_000),
    "buy-b@1": Rate(123_456_789, 12_345_678, 123_456_789, 987_654_321, 987_654_321),
}


class Account(msgspec.Struct, frozen=True):
    """A customer's billing account with its key."""

    id: str
    entity: str
    secret: str

    @property
    def digest(self) -> bytes:
        """What the gateway asks for."""
        return hashlib.sha256(self.secret.encode()).digest()

    def key(self, refused: str = "") -> Key:
        """What the office answers."""
        return Key(f"key-{self.id}", self.entity, f"cus-{self.id}", self.id, refused)


class Scene(msgspec.Struct, frozen=True):
    """Who and what there is."""

    machines: int
    workers: int
    settings: Settings
    accounts: tuple[Account, ...]
    sales: tuple[Sell, ...]
    tariffs: tuple[Tariff, ...]
    endpoints: tuple[Endpoint, ...]

    def catalog(self, version: int) -> Catalog:
        """The catalog at a version: each one sells at other prices."""
        models = {
            "m-small": Model("m-small", 2_000, 120, "sim", 1),
            "m-large": Model("m-large", 8_000, 400, "sim", 1, bytes_per_token=3),
        }
        tariffs = {tariff.id: repriced(tariff, version) for tariff in self.tariffs}
        return Catalog(version, 0, models, self.endpoints, tariffs)


def scene(seed: int) -> Scene:
    """The scene of a seed."""
    chance = Chance(seed, "scene")
    machines = chance.between(1, 3)
    accounts = tuple(
        Account(f"acc-{number}", chance.pick(ENTITIES), f"sk-{seed}-{number}") for number in range(chance.between(2, 6))
    )
    tariffs = _tariffs()
    sales = [sale for place, account in enumerate(accounts) for sale in _sales(chance, account, place)]
    return Scene(
        machines=machines,
        workers=chance.between(1, 2 if machines < 3 else 1),
        settings=_settings(chance),
        accounts=accounts,
        sales=tuple(sales),
        tariffs=tariffs,
        endpoints=tuple(_endpoint(chance, number) for number in range(4)),
    )


def sale(chance: Chance, account: Account, name: str, at_ns: int, *, wall_ns: int) -> Sell:
    """A package; some are valid for seconds only."""
    tariff = chance.pick(("plain", "classes", "money"))
    unit = "CNY" if tariff == "money" else "token"
    tokens = chance.pick((300, 2_000, 15_000, 400_000, 5_000_000))
    granted = tokens * 700 if unit == "CNY" else tokens
    ends = chance.hits(250)
    valid_to_ns = wall_ns + chance.between(2, 20) * SECOND_NS if ends else FAR_NS
    models = (chance.pick(MODELS),) if chance.hits(250) else ()
    terms = Bucket(
        f"bkt-{name}",
        account.id,
        account.entity,
        unit,
        tariff,
        0,
        valid_to_ns,
        priority=chance.pick((100, 100, 50)),
        models=models,
    )
    on_credit = chance.hits(150)
    net = chance.pick((9_339_622_642, 1_000_000_007)) if on_credit else chance.pick((0, 9_339_622_642, 1_000_000_007))
    return Sell(at_ns, f"order-{name}", terms, granted, "carrier/sandbox", "CNY", net, net * 6 // 100, on_credit)


def repriced(tariff: Tariff, version: int) -> Tariff:
    """A later version of a tariff: dearer by a tenth for each."""
    if version == 1:
        return tariff
    rates = {
        name: Rate(*(price + price * (version - 1) // 10 for price in rate.each()))
        for name, rate in tariff.rates.items()
    }
    return Tariff(tariff.id, version, tariff.unit, rates, tariff.rounding)


def _sales(chance: Chance, account: Account, place: int) -> list[Sell]:
    count = chance.between(1, 3)
    return [sale(chance, account, f"{place}-{number}", 1, wall_ns=4_000_000_000_000_000_000) for number in range(count)]


def _tariffs() -> tuple[Tariff, ...]:
    one = 1_000_000
    large = Rate(3 * one, 3 * one, 3 * one, 3 * one, 3 * one)
    return (
        Tariff("plain", 1, "token", {"*/*": Rate(one, one, one, one, one), "m-large/*": large}),
        Tariff("classes", 1, "token", {"*/*": Rate(1_500_000, 150_000, 1_900_000, 4_200_000, 4_200_000)}, "up"),
        Tariff("money", 1, "CNY", {"*/*": Rate(623_750_000, 62_375_000, 623_750_000, 1_247_500_001, 1_247_500_001)}),
    )


def _endpoint(chance: Chance, number: int) -> Endpoint:
    tariff = chance.pick(tuple(PURCHASES))
    return Endpoint(
        id=f"ep-{number}",
        supplier_id=f"sup-{number % 2}",
        model=MODELS[number % 2],
        base_url=f"http://ep-{number}:80/v1",
        upstream_model="up",
        api_key="key",
        tariff=tariff,
        currency="CNY",
        rate=PURCHASES[tariff],
        rounding=chance.pick(("up", "half_up")),
        disconnect=chance.pick(("stop", "drain")),
    )


def _settings(chance: Chance) -> Settings:
    """Times a tenth or a thirtieth of the usual, so that everything comes to its end within a minute."""
    return Settings(
        durability=chance.pick(("interval", "every")),
        journal_fsync_ms=chance.pick((20, 60)),
        journal_segment_bytes=chance.pick((33_280, 262_144)),
        ship_interval_ms=chance.pick((40, 150)),
        ship_batch_bytes=65_536,
        ship_confirm_ms=1_000,
        lease_use_ms=chance.pick((1_000, 3_000)),
        lease_share_percent=chance.pick((2, 20, 100)),
        lease_wait_ms=chance.pick((300, 1_000)),
        lease_idle_ms=chance.pick((500, 2_000)),
        lease_recall_ms=400,
        lease_likely_tokens=chance.pick((8, 64)),
        lease_step_tokens=chance.pick((8, 64)),
        lease_cap_account=chance.pick(("", "", "token=20000 CNY=0.02")),
        lease_cap_worker="",
        lease_grace_ms=2_000,
        request_longest_ms=4_000,
        client_idle_ms=3_000,
        connect_timeout_ms=500,
        endpoint_silence_ms=1_000,
        endpoint_idle_ms=2_000,
        endpoint_rest_ms=500,
        checkpoint_tokens=chance.pick((8, 32)),
        checkpoint_ms=400,
        write_buffer_bytes=4_096,
        key_stale_ms=5_000,
        catalog_stale_ms=30_000,
        bus_timeout_ms=500,
        drain_ms=1_000,
    )
