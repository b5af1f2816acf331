//! The two hash functions of a scheme, and the bytes that every node's id is taken over.

use sha2::{Digest, Sha256};

pub const ID_BYTES: usize = 32;
pub type Id = [u8; ID_BYTES];

/// Which hash function gives a trie its ids.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hasher {
    Blake3,
    Sha256,
}

impl Hasher {
    pub fn named(name: &str) -> Option<Hasher> {
        match name {
            "blake3" => Some(Hasher::Blake3),
            "sha256" => Some(Hasher::Sha256),
            _ => None,
        }
    }

    pub fn hash(self, data: &[u8]) -> Id {
        match self {
            Hasher::Blake3 => *blake3::hash(data).as_bytes(),
            Hasher::Sha256 => Sha256::digest(data).into(),
        }
    }
}

/// What a node keeps of a value: the value itself when it is shorter than an id, else its hash.
#[derive(Clone, Copy)]
pub struct ValueDigest {
    length: u8,
    bytes: Id,
}

impl ValueDigest {
    pub fn of_value(hasher: Hasher, value: &[u8]) -> ValueDigest {
        ValueDigest::from_slice(value)
            .filter(|_| value.len() < ID_BYTES)
            .unwrap_or_else(|| ValueDigest { length: ID_BYTES as u8, bytes: hasher.hash(value) })
    }

    /// Return what was a digest before; None when no digest has as many bytes.
    pub fn from_slice(digest: &[u8]) -> Option<ValueDigest> {
        if digest.len() > ID_BYTES {
            return None;
        }
        let mut bytes = [0; ID_BYTES];
        bytes[..digest.len()].copy_from_slice(digest);
        Some(ValueDigest { length: digest.len() as u8, bytes })
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Append the little-endian base-128 form of a number.
pub fn put_uvarint(to: &mut Vec<u8>, mut number: usize) {
    while number >= 128 {
        to.push((number & 127) as u8 | 128);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Append what stands after the children of a record: the branch's own value.
pub fn put_value_part(to: &mut Vec<u8>, digest: Option<&ValueDigest>) {
    match digest {
        None => to.push(0),
        Some(digest) => {
            to.push(1);
            to.push(digest.length);
            to.extend_from_slice(digest.as_slice());
        }
    }
}

/// Return the id of the leaf of a key.  `scratch` is only there to be used again.
pub fn leaf_id(hasher: Hasher, key: &[u8], digest: &ValueDigest, scratch: &mut Vec<u8>) -> Id {
    scratch.clear();
    scratch.push(0);
    put_value_part(scratch, Some(digest));
    put_uvarint(scratch, 8 * key.len());
    scratch.extend_from_slice(key);
    hasher.hash(scratch)
}
