//! The compiled kernel of merklesync: twins of `merkledb`'s pure kernel, behind the same columns.

mod fold;
mod hash;
mod past;
mod path;
mod python;
mod verify;
