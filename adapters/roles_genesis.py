"""The genesis as a file: how a network's document is made once, kept, and read by every role."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from adapters.avro_codec import AvroCodec
from adapters.bootstrap import Network
from adapters.settings import ChainKind, Settings, SettingsInvalid
from domain.codec import CodecError
from domain.genesis import Genesis


def drawn(make: Callable[[int], Genesis], codec: AvroCodec) -> Genesis:
    """A genesis with a nonce of its own, whose hash can name a network.

    A hash that begins with a zero byte would be taken for a Confluent frame.
    """
    while True:
        made = make(secrets.randbits(62))
        if hashlib.sha256(codec.encode(made)).digest()[0]:
            return made


def write(path: Path, genesis: Genesis, codec: AvroCodec) -> None:
    """Write a genesis, whole or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with draft.open("xb") as file:
        file.write(codec.encode(genesis))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def read(path: Path, codec: AvroCodec) -> Genesis:
    """The genesis of a file. Raises ``SettingsInvalid``."""
    try:
        return codec.decode(Genesis, path.read_bytes())
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror or error}.") from error
    except CodecError as error:
        raise SettingsInvalid(f"{path} is no genesis of this version: {error}.") from error


def network_of(settings: Settings, codec: AvroCodec) -> Network:
    """The network that a file of settings describes; its L1 is the one of the genesis.

    Raises ``SettingsInvalid`` or ``GenesisRefused``.
    """
    genesis = read(settings.genesis, codec)
    chain = settings.chain
    if chain.kind is ChainKind.RPC and (chain.chain_id, chain.vault) != (
        genesis.chain_id,
        genesis.vault,
    ):
        raise SettingsInvalid(
            f"{settings.path}: [l1] names vault 0x{chain.vault.hex()} of chain {chain.chain_id}, "
            f"the genesis 0x{genesis.vault.hex()} of chain {genesis.chain_id}."
        )
    return Network.of(genesis, settings.shards, codec)
