"""Which addresses endpoints may have: every form in which a private one can be written is refused."""

import pytest

from tokenworks.core.networks import NetworkFault, parse_networks, why_refused

REFUSED = {
    "127.0.0.1": "this machine",
    "127.9.9.9": "this machine",
    "0.0.0.0": "this machine",
    "::1": "this machine",
    "::": "this machine",
    "::ffff:127.0.0.1": "this machine",
    "64:ff9b::127.0.0.1": "this machine",
    "2002:7f00:0001::": "this machine",
    "10.0.0.1": "a private address",
    "172.16.0.1": "a private address",
    "172.31.255.255": "a private address",
    "192.168.1.1": "a private address",
    "::ffff:10.0.0.1": "a private address",
    "64:ff9b::a00:1": "a private address",
    "fd12::1": "a private address",
    "169.254.1.1": "a link-local address",
    "fe80::1": "a link-local address",
    "fe80::1%eth0": "a link-local address",
    "169.254.169.254": "metadata",
    "::ffff:169.254.169.254": "metadata",
    "168.63.129.16": "metadata",
    "192.0.0.192": "metadata",
    "100.100.100.200": "metadata",
    "fd00:ec2::254": "metadata",
    "100.64.0.1": "not a public address",
    "192.0.0.8": "",
    "198.18.0.1": "",
    "240.0.0.1": "",
    "255.255.255.255": "",
    "224.0.0.1": "a multicast address",
    "ff02::1": "a multicast address",
    "2001:db8::1": "",
}


@pytest.mark.parametrize("address", REFUSED)
def test_refused(address: str) -> None:
    why = why_refused(address, ())
    assert why
    assert REFUSED[address] in why


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::808:808"])
def test_public(address: str) -> None:
    assert why_refused(address, ()) == ""


def test_allowed_networks_and_nothing_beside_them() -> None:
    allowed = parse_networks("10.0.0.0/8 fd12::/16 100.64.0.0/10")
    for address in ("10.255.0.1", "::ffff:10.0.0.1", "fd12::7", "100.64.0.1"):
        assert why_refused(address, allowed) == ""
    for address in ("11.0.0.1", "127.0.0.1", "fd13::1"):
        assert (why_refused(address, allowed) == "") == (address == "11.0.0.1")


def test_a_metadata_service_must_be_named_itself() -> None:
    assert why_refused("100.100.100.200", parse_networks("100.64.0.0/10"))
    assert why_refused("169.254.169.254", parse_networks("0.0.0.0/0 169.254.0.0/16"))
    assert why_refused("169.254.169.254", parse_networks("169.254.169.254")) == ""


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.1/8", "ten", "10.0.0.0/33", "10.0.0.0/8,::1"])
def test_what_is_no_network(text: str) -> None:
    if text == "10.0.0.0":
        assert str(parse_networks(text)[0]) == "10.0.0.0/32"
        return
    with pytest.raises(NetworkFault, match="networks look like"):
        parse_networks(text)
