"""A range proof that was tampered with is rejected, or says the truth nevertheless."""

import pytest

from merkledb import InvalidProof, Reason
from tests.tamperings import END, START, STORE, TABLE, honest


def test_the_table_starts_from_the_proof_that_its_drawing_shows() -> None:
    case = honest()
    assert case.proof.keys == (START, b"\x21\x77", b"\x25", b"\x30\x30", END)
    assert [(b.path, b.digest, [t for t, _ in b.children]) for b in case.proof.boundary] == [
        (b"", STORE[b""], [1, 7]),
        (b"\x02\x01\x00", None, [0]),
        (b"\x03\x00", None, [4]),
        (b"\x03\x00\x03\x01", None, [5]),
    ]
    assert case.verify().complete


@pytest.mark.parametrize("name", TABLE)
def test_a_tampering_is_rejected_with_its_reason(name: str) -> None:
    tamper, reason = TABLE[name]
    with pytest.raises(InvalidProof) as caught:
        tamper(honest()).verify()
    assert caught.value.reason is reason, caught.value


def test_every_reason_has_a_tampering() -> None:
    assert {reason for _, reason in TABLE.values()} == set(Reason)


def test_limits_that_are_just_met_are_no_reason_to_reject() -> None:
    case = honest()
    case._replace(max_keys=len(case.proof.keys), max_bytes=len(case.proof.encode())).verify()


@pytest.mark.parametrize("max_keys", range(1, 6))
def test_an_honest_proof_cut_off_anywhere_is_accepted(max_keys: int) -> None:
    verified = honest(max_keys=max_keys).verify()
    assert (len(verified), verified.complete) == (max_keys, max_keys == 5)
