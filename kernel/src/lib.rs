//! The compiled kernel of merklesync: it does what `merkledb`'s pure kernel does, from and to the same columns.

mod boundary;
mod bucket;
mod columns;
mod delta;
mod fold;
mod hash;
mod leaves;
mod path;
mod python;
mod python_trie;
mod python_verify;
mod verify;
mod walk;
mod whole;
