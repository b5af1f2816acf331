"""Every byte example of docs/protocol.md is what it says it is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from blake3 import blake3

import merkledb
import syncproto
from merkledb import Branch, ChangeProof, RangeProof
from syncproto import (
    Connection,
    Error,
    ErrorCode,
    Hello,
    Message,
    RemoteProtocolError,
    Role,
    Subscribe,
    codec,
    encode,
)
from tests.support.syncproto_strategies import greeted_pair

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")

CONTENT = {b"cat": b"meow", b"cow": b"moo", b"dog": b"woof", b"dove": b"coo"}
ROOT = merkledb.root_of(CONTENT)
CHANGED = {b"cow": b"moo!", b"dog": None}
NEW_CONTENT = {b"cat": b"meow", b"cow": b"moo!", b"dove": b"coo"}
NEW_ROOT = merkledb.root_of(NEW_CONTENT)


class Example(NamedTuple):
    """A fenced block of bytes with comments, and the line that says what they are."""

    kind: str
    data: bytes
    meaning: str


_HEX_LINE = re.compile(r"((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: +(?:\S.*)?)?$")


def _examples() -> Iterator[Example]:
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        *lines, meaning = block.splitlines()
        data = b""
        for line in lines:
            match = _HEX_LINE.match(line)
            assert match is not None, f"not a line of bytes: {line}"
            # Two spaces end the bytes: a comment may begin with what looks like a byte.
            data += bytes.fromhex(line.partition("  ")[0] if "  " in line else match.group(1))
        yield Example(kind, data, meaning)


EXAMPLES = list(_examples())


def of_kind(*kinds: str) -> list[Example]:
    return [example for example in EXAMPLES if example.kind in kinds]


def leaf_id(key: bytes, value: bytes) -> bytes:
    return blake3(b"\x00\x01" + bytes([len(value)]) + value + bytes([8 * len(key)]) + key).digest()


NAMES = {
    **{name: getattr(syncproto, name) for name in syncproto.__all__},
    "RangeProof": RangeProof,
    "ChangeProof": ChangeProof,
    "Branch": Branch,
    "ROOT": ROOT,
    "NEW_ROOT": NEW_ROOT,
    "CAT": leaf_id(b"cat", b"meow"),
    "DOVE": leaf_id(b"dove", b"coo"),
}


def meant(example: Example) -> object:
    """Return what the last line of an example stands for."""
    assert example.meaning.startswith("= ")
    return eval(example.meaning[2:], dict(NAMES))


(PROOF,) = (meant(example) for example in of_kind("proof"))
(CHANGES,) = (meant(example) for example in of_kind("changes"))
NAMES |= {"PROOF": PROOF, "CHANGES": CHANGES}


def test_there_are_examples_of_every_sort() -> None:
    kinds = {"client", "server", "proof", "changes", "hash", "misbehaviour", "amiss"}
    assert {example.kind for example in EXAMPLES} == kinds


@pytest.mark.parametrize("example", of_kind("client", "server"), ids=lambda example: example.meaning[:20])
def test_a_frame_is_the_message_that_it_is_said_to_be(example: Example) -> None:
    message = meant(example)
    assert syncproto.decode(memoryview(example.data)[4:]) == message
    assert int.from_bytes(example.data[:4], "big") == len(example.data) - 4


def test_the_conversation_obeys_the_rules() -> None:
    hellos = [message for message in map(meant, of_kind("client", "server")) if isinstance(message, Hello)]
    client, server = Connection(Role.CLIENT, hellos[0]), Connection(Role.SERVER, hellos[1])
    for kind, data, meaning in of_kind("client", "server"):
        message = meant(Example(kind, data, meaning))
        sender, receiver = (client, server) if kind == "client" else (server, client)
        assert sender.send(message) == data  # type: ignore[arg-type]  # the test above has shown what it is
        # Nobody waits for the end of a subscription that was cancelled.
        swallowed = isinstance(message, Error) and message.code is ErrorCode.CANCELLED
        assert list(receiver.receive_data(data)) == ([] if swallowed else [message])
    assert client.in_flight == 0
    assert client.subscription is None


@pytest.mark.parametrize("example", of_kind("misbehaviour"), ids=lambda example: example.data.hex())
def test_misbehaviour_is_the_error_that_it_is_said_to_be(example: Example) -> None:
    _, server = greeted_pair()
    with pytest.raises(RemoteProtocolError) as caught:
        list(server.receive_data(example.data))
    assert f"! {type(caught.value).__name__}" == example.meaning


@pytest.mark.parametrize("example", of_kind("amiss"), ids=lambda example: example.data.hex())
def test_a_servers_misbehaviour_is_the_error_that_it_is_said_to_be(example: Example) -> None:
    client, _ = greeted_pair()
    client.send(Subscribe(1))
    with pytest.raises(RemoteProtocolError) as caught:
        list(client.receive_data(example.data))
    assert f"! {type(caught.value).__name__}" == example.meaning


def test_the_proof_is_what_a_database_makes_and_what_a_verifier_accepts(tmp_path: Path) -> None:
    (example,) = of_kind("proof")
    assert RangeProof.decode(example.data) == PROOF
    with merkledb.open(tmp_path / "store") as database:
        assert database.commit(CONTENT) == ROOT
        assert database.prove_range(b"cow", b"dog") == PROOF
    verified = merkledb.verify_range(RangeProof.decode(example.data), ROOT, b"cow", b"dog")
    assert dict(zip(verified.keys, verified.values, strict=True)) == {b"cow": b"moo", b"dog": b"woof"}
    assert verified.complete


def test_the_change_proof_is_what_a_database_makes_and_what_a_verifier_accepts(tmp_path: Path) -> None:
    (example,) = of_kind("changes")
    assert ChangeProof.decode(example.data) == CHANGES
    with merkledb.open(tmp_path / "store") as database, merkledb.open(tmp_path / "copy") as copy:
        copy.commit(CONTENT)
        database.commit(CONTENT)
        assert database.commit(CHANGED) == NEW_ROOT
        assert database.prove_changes(ROOT, NEW_ROOT, b"cow", b"dog") == CHANGES
        verified = copy.verify_changes(ChangeProof.decode(example.data), NEW_ROOT, b"cow", b"dog")
    assert dict(zip(verified.keys, verified.values, strict=True)) == CHANGED
    assert verified.complete


@pytest.mark.parametrize("example", of_kind("hash"), ids=lambda example: example.meaning[2:10])
def test_an_id_is_the_hash_of_its_bytes(example: Example) -> None:
    assert blake3(example.data).digest() == bytes.fromhex(example.meaning[2:])


def test_the_last_id_is_the_root() -> None:
    assert bytes.fromhex(of_kind("hash")[-1].meaning[2:]) == ROOT


def _table_after(heading: str) -> list[list[str]]:
    """Return the rows of the first table after a heading, without its header."""
    rows = []
    for line in TEXT.partition(heading)[2].splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def test_the_table_of_messages_is_complete() -> None:
    def words(name: str) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()

    expected = []
    for layout in codec.LAYOUTS:
        fields = ", ".join(field.name for field in layout.fields)
        for name in ("branch_factor", "user_agent", "old_root", "new_root"):
            fields = fields.replace(name, name.replace("_", " "))
        expected.append([str(int(layout.kind)), words(layout.name), fields])
    assert [[row[0], row[1], row[3]] for row in _table_after("## Messages")] == expected


def test_the_table_of_error_codes_is_complete() -> None:
    rows = _table_after("| detail | integer or nil | 1 - 2^32 - 1 | with codes 3 and 6, and only with them |")
    named = {row[1].upper().replace(" ", "_"): int(row[0]) for row in rows}
    assert named == {code.name: int(code) for code in syncproto.ErrorCode}


def test_a_message_of_every_kind_is_shown() -> None:
    shown: set[type[Message]] = {type(meant(example)) for example in of_kind("client", "server")}  # type: ignore[misc]
    assert shown == {layout.message for layout in codec.LAYOUTS}
    assert all(encode(message) for message in map(meant, of_kind("client", "server")))  # type: ignore[arg-type]
