"""prove and verify: a file that convinces, and every way in which one does not."""

from pathlib import Path

import pytest

import merkledb
from merkledb import RangeProof, Scheme
from tests.support.command_line import fail, fill, run, succeed, succeed_json

PAIRS = {b"%03d" % number: b"value %d" % number for number in range(100)} | {b"\xff": b"\x00\xff"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fill(tmp_path / "store", PAIRS)
    return tmp_path / "store"


@pytest.fixture
def root(store: Path) -> str:
    return succeed("root", store).strip()


@pytest.mark.parametrize(
    ("key", "sentence"),
    [("007", "key 007 holds value 7"), ("0xff", "key 0xff holds 0x00ff"), ("nope", "there is no key nope")],
)
def test_a_proof_of_a_key_says_what_it_holds_or_that_it_is_absent(
    store: Path, root: str, tmp_path: Path, key: str, sentence: str
) -> None:
    proof = tmp_path / "proof"
    succeed("prove", store, key, "--output", proof)
    assert succeed("verify", proof, key, "--root", root) == f"verified: {sentence}\n"


def test_a_proof_goes_through_a_pipe(store: Path, root: str) -> None:
    proof = run("prove", store, "007").stdout_bytes
    assert RangeProof.decode(proof).values == (b"value 7",)
    assert "holds value 7" in succeed("verify", "-", "007", "--root", root, stdin=proof)


def test_a_proof_of_a_range_lists_its_pairs(store: Path, root: str) -> None:
    bounds = ["--start", "010", "--end", "0115"]
    proof = run("prove", store, *bounds).stdout_bytes
    output = succeed("verify", "-", *bounds, "--root", f"0x{root}", "--values", stdin=proof)
    assert (
        output == "verified: the root holds exactly 2 keys from 010 to 0115\n010\tvalue 10\n011\tvalue 11\n"
    )


def test_a_cut_off_proof_says_how_far_it_goes(store: Path, root: str, tmp_path: Path) -> None:
    result = run("prove", store, "--max-keys", "10", "--output", tmp_path / "proof")
    assert "--start 0x30303900" in result.stderr
    result = run("verify", tmp_path / "proof", "--root", root)
    assert result.stdout == "verified: the root holds exactly 10 keys from the first key to 009\n"
    assert result.stderr == (
        "Note: the proof ends at 009, before the range does: of what comes after it nothing is proved; "
        "have the rest proved with prove --start 0x30303900\n"
    )
    rest = run("prove", store, "--start", "0x30303900").stdout_bytes
    assert "91 keys" in succeed("verify", "-", "--start", "0x30303900", "--root", root, stdin=rest)


def test_json_describes_a_proof_and_what_it_proves(store: Path, root: str, tmp_path: Path) -> None:
    document = succeed_json("prove", store, "007")
    about = {"root": root, "hasher": "blake3", "branch_factor": 16, "start": "007", "end": "007"}
    assert {**document, **about, "complete": True, "keys": 1} == document
    assert set(document) == {*about, "complete", "keys", "proof_bytes", "proof"}
    document = succeed_json("prove", store, "--max-keys", "2", "--output", tmp_path / "proof")
    assert (document["complete"], document["start"], document["end"]) == (False, None, "001")
    assert document["file"] == str(tmp_path / "proof")
    assert succeed_json("verify", tmp_path / "proof", "--root", root, "--values") == {
        "root": root,
        "start": None,
        "end": "001",
        "complete": False,
        "keys": 2,
        "pairs": [{"key": "000", "value": "value 0"}, {"key": "001", "value": "value 1"}],
    }


def test_verify_needs_the_scheme_of_the_root(tmp_path: Path) -> None:
    options = ["--hasher", "sha256", "--branch-factor", "2"]
    root = fill(tmp_path / "store", {b"k": b"v"}, *options)
    proof = run("prove", tmp_path / "store", "k").stdout_bytes
    assert "holds v" in succeed("verify", "-", "k", "--root", root, *options, stdin=proof)
    assert (
        "it holds for sha256 with branch factor 2: if that is the root's scheme, "
        "add --hasher sha256 --branch-factor 2"
    ) in fail(3, "verify", "-", "k", "--root", root, stdin=proof)


def test_what_does_not_prove_the_claim_is_exit_code_3(store: Path, root: str) -> None:
    proof = run("prove", store, "007").stdout_bytes
    other_root = merkledb.root_of({b"007": b"value 8"}, Scheme()).hex()
    sentence = fail(3, "verify", "-", "007", "--root", other_root, stdin=proof)
    assert "wrong root" in sentence
    assert "compare --root with the root that prove printed" in sentence
    sentence = fail(3, "verify", "-", "008", "--root", root, stdin=proof)
    assert (
        "outside the range; give the KEY, or the --start and --end, that the proof was made for" in sentence
    )
    sentence = fail(3, "verify", "-", "--start", "0", "--end", "1", "--root", root, stdin=proof)
    assert "give the KEY, or the --start and --end, that the proof was made for" in sentence
    forged = proof.replace(b"value 7", b"value 8")
    assert "wrong root" in fail(3, "verify", "-", "007", "--root", root, stdin=forged)
    for data in (b"", b"nonsense", proof[:-1], proof + b"\x00"):
        assert "malformed" in fail(3, "verify", "-", "007", "--root", root, stdin=data)


def test_a_limit_that_no_proof_keeps_says_which_would_do(store: Path) -> None:
    sentence = fail(1, "prove", store, "--max-bytes", "10")
    assert "cannot hold the next pair: add --max-bytes " in sentence
    enough = int(sentence.split()[-1])
    assert 0 < len(run("prove", store, "--max-bytes", enough).stdout_bytes) <= enough


def test_a_proof_at_an_older_root_holds_for_that_root(store: Path, root: str) -> None:
    succeed("put", store, "007", "newer")
    proof = run("prove", store, "007", "--at", "1").stdout_bytes
    assert "holds value 7" in succeed("verify", "-", "007", "--root", root, stdin=proof)
    assert succeed_json("prove", store, "--start", "007", "--at", root[:8])["root"] == root
