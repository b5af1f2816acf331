//! The compiled kernel of merklesync: twins of `merkledb`'s pure kernel, behind the same columns.

mod boundary;
mod bucket;
mod columns;
mod fold;
mod hash;
mod leaves;
mod past;
mod path;
mod python;
mod python_trie;
mod python_verify;
mod verify;
mod walk;
mod whole;
