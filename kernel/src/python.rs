//! What Python sees.  Arguments are held by reference while the interpreter lock is given away.

use std::collections::HashSet;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyTuple, PyType};

use crate::fold::{self, Closed, Item, OutOfOrder};
use crate::hash::{Hasher, Id, ValueDigest, leaf_id};
use crate::past::{PastRow, past_row};
use crate::path::Codec;
use crate::verify::{self, Branch, Limits, Rejection, Request, Shown, Top};

/// Which interface this is; the Python side refuses another one.
const INTERFACE: u32 = 1;
/// So many rows of a column are taken from Python at a time.
const PIECE: usize = 2048;

fn hasher_of(name: &str) -> PyResult<Hasher> {
    Hasher::named(name).ok_or_else(|| PyValueError::new_err("unknown hasher"))
}

fn scheme_of(hasher: &str, branch_factor: usize) -> PyResult<(Hasher, Codec)> {
    let hasher = hasher_of(hasher)?;
    let codec = Codec::of(branch_factor).ok_or_else(|| PyValueError::new_err("unknown branch factor"))?;
    Ok((hasher, codec))
}

fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    let bytes = value.cast_exact::<PyBytes>().map_err(|_| PyTypeError::new_err("it is no bytes"))?;
    Ok(PyBackedBytes::from(bytes.clone()))
}

fn optional_bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Option<PyBackedBytes>> {
    if value.is_none() { Ok(None) } else { bytes_of(value).map(Some) }
}

fn column_of(column: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedBytes>> {
    if let Ok(list) = column.cast::<PyList>() {
        return list.iter().map(|value| bytes_of(&value)).collect();
    }
    column.cast::<PyTuple>()?.iter().map(|value| bytes_of(&value)).collect()
}

fn list_of<B: AsRef<[u8]>>(
    py: Python<'_>,
    column: impl ExactSizeIterator<Item = B>,
) -> PyResult<Bound<'_, PyList>> {
    PyList::new(py, column.map(|bytes| PyBytes::new(py, bytes.as_ref())))
}

/// Return the digests of values, and the ids of the leaves of keys with them.
#[pyfunction]
fn hash_leaves<'py>(
    py: Python<'py>,
    hasher: &str,
    keys: &Bound<'py, PyList>,
    values: &Bound<'py, PyList>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let hasher = hasher_of(hasher)?;
    let (digests, ids) = (PyList::empty(py), PyList::empty(py));
    for (from, to) in pieces(&[keys.len(), values.len()])? {
        let (keys, values) = (column_of(&keys.get_slice(from, to))?, column_of(&values.get_slice(from, to))?);
        let leaves: Vec<(ValueDigest, Id)> = py.detach(|| {
            let mut scratch = Vec::new();
            let hash = |(key, value): (&PyBackedBytes, &PyBackedBytes)| {
                let digest = ValueDigest::of_value(hasher, value);
                (digest, leaf_id(hasher, key, &digest, &mut scratch))
            };
            keys.iter().zip(&values).map(hash).collect()
        });
        for (digest, id) in &leaves {
            digests.append(PyBytes::new(py, digest.as_slice()))?;
            ids.append(PyBytes::new(py, id))?;
        }
    }
    Ok((digests, ids))
}

/// Return where columns are cut, so that what is taken from Python stays in the processor's cache until it is
/// used.
fn pieces(lengths: &[usize]) -> PyResult<impl Iterator<Item = (usize, usize)> + use<>> {
    let length = lengths[0];
    if lengths.iter().any(|other| *other != length) {
        return Err(PyValueError::new_err("the columns differ in length"));
    }
    Ok((0..length).step_by(PIECE).map(move |from| (from, (from + PIECE).min(length))))
}

type Columns<'py> = (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>);

/// Append branches that closed to columns of paths, records and ids.
fn append(py: Python<'_>, columns: &Columns<'_>, closed: &Closed) -> PyResult<()> {
    let (paths, records, ids) = columns;
    for (index, id) in closed.ids.iter().enumerate() {
        paths.append(PyBytes::new(py, closed.path(index)))?;
        records.append(PyBytes::new(py, closed.record(index)))?;
        ids.append(PyBytes::new(py, id))?;
    }
    Ok(())
}

/// One left-to-right fold over a stream of items that arrives in stretches.
#[pyclass(module = "merklekernel")]
struct Fold {
    fold: fold::Fold<PyBackedBytes>,
}

#[pymethods]
impl Fold {
    #[new]
    fn new(hasher: &str, branch_factor: usize) -> PyResult<Fold> {
        let (hasher, codec) = scheme_of(hasher, branch_factor)?;
        Ok(Fold { fold: fold::Fold::new(hasher, codec) })
    }

    /// Take the next stretch, as columns; return paths, records and ids of the branches that closed.
    fn feed<'py>(
        &mut self,
        py: Python<'py>,
        paths: &Bound<'py, PyList>,
        ids: &Bound<'py, PyList>,
        digests: &Bound<'py, PyList>,
        records: &Bound<'py, PyDict>,
    ) -> PyResult<Columns<'py>> {
        let columns = (PyList::empty(py), PyList::empty(py), PyList::empty(py));
        for (from, to) in pieces(&[paths.len(), ids.len(), digests.len()])? {
            let paths = column_of(&paths.get_slice(from, to))?;
            let (ids, digests) = (ids.get_slice(from, to), digests.get_slice(from, to));
            let mut items = Vec::with_capacity(paths.len());
            for ((path, id), digest) in paths.iter().zip(ids.iter()).zip(digests.iter()) {
                items.push(item_of(path, &id, &digest, records)?);
            }
            let fold = &mut self.fold;
            let fed: Result<Closed, OutOfOrder> = py.detach(|| {
                for (path, item) in paths.iter().zip(items) {
                    fold.feed(path, item)?;
                }
                Ok(std::mem::take(&mut fold.closed))
            });
            let closed = fed.map_err(|_: OutOfOrder| {
                PyValueError::new_err("the stream is not in strictly ascending order")
            })?;
            append(py, &columns, &closed)?;
        }
        Ok(columns)
    }

    /// End the stream; return the root, None of an empty trie, and the branches that were still open.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<(Option<Bound<'py, PyBytes>>, Columns<'py>)> {
        let root = self.fold.finish();
        let closed = std::mem::take(&mut self.fold.closed);
        let columns = (PyList::empty(py), PyList::empty(py), PyList::empty(py));
        append(py, &columns, &closed)?;
        Ok((root.map(|root| PyBytes::new(py, &root)), columns))
    }
}

fn item_of<'py>(
    path: &PyBackedBytes,
    id: &Bound<'py, PyAny>,
    digest: &Bound<'py, PyAny>,
    records: &Bound<'py, PyDict>,
) -> PyResult<Item<PyBackedBytes>> {
    let digest = optional_bytes_of(digest)?;
    let digest = match &digest {
        None => None,
        Some(digest) => Some(
            ValueDigest::from_slice(digest)
                .ok_or_else(|| PyValueError::new_err("a digest has at most 32 bytes"))?,
        ),
    };
    let Some(id) = optional_bytes_of(id)? else {
        let record = records.get_item(path)?;
        return Ok(Item::Record(digest, record.map(|record| bytes_of(&record)).transpose()?));
    };
    if id.is_empty() {
        return Ok(Item::Deleted);
    }
    let id = id[..].try_into().map_err(|_| PyValueError::new_err("an id has 32 bytes"))?;
    Ok(Item::Node(id, digest))
}

type PastRows<'py> = (Bound<'py, PyList>, Vec<usize>, Bound<'py, PyList>);

/// Return the rows of history of branches, each without the places of its children; and of children whose
/// place is to be added, the number of the row and the slot, in the order in which they are to be added.
#[pyfunction]
fn past_rows<'py>(
    py: Python<'py>,
    paths: &Bound<'py, PyList>,
    records: &Bound<'py, PyList>,
    new_records: &Bound<'py, PyList>,
    opened: &Bound<'py, PyList>,
) -> PyResult<PastRows<'py>> {
    let (paths, records, opened) = (column_of(paths)?, column_of(records)?, column_of(opened)?);
    let new_records = new_records.iter().map(|record| optional_bytes_of(&record));
    let new_records = new_records.collect::<PyResult<Vec<_>>>()?;
    if records.len() != paths.len() || new_records.len() != paths.len() {
        return Err(PyValueError::new_err("the columns differ in length"));
    }
    let rows: Vec<PastRow> = py.detach(|| {
        let opened: HashSet<&[u8]> = opened.iter().map(AsRef::as_ref).collect();
        let row_of = |((path, record), new_record): ((&PyBackedBytes, &PyBackedBytes), &Option<_>)| {
            past_row(path, record, new_record.as_ref().map(PyBackedBytes::as_ref), &opened)
        };
        paths.iter().zip(&records).zip(&new_records).map(row_of).collect()
    });
    let wanted =
        || rows.iter().enumerate().flat_map(|(index, row)| row.slots.iter().map(move |slot| (index, slot)));
    let slots = wanted().map(|(_, slot)| PyBytes::new(py, slot)).collect::<Vec<_>>();
    let indexes = wanted().map(|(index, _)| index).collect();
    Ok((list_of(py, rows.iter().map(|row| &row.row))?, indexes, PyList::new(py, slots)?))
}

/// What `verify_range` returns: columns of what was shown, or a reason and a detail.
#[derive(IntoPyObject)]
enum Verdict<'py> {
    Shown(Bound<'py, PyTuple>, Columns<'py>),
    Rejected(&'static str, String),
}

/// What bounds a proof, as Python passes it: tokens of a path, bytes of a value, branches of a boundary, and
/// the keys and bytes that were asked for.
type PyLimits = (usize, usize, usize, Option<usize>, Option<usize>);

/// Verify a range proof.
///
/// Raises ``TypeError`` for what has not the form of a proof; the pure twin then says where.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are those of the pure twin")]
fn verify_range<'py>(
    py: Python<'py>,
    scheme: (&str, usize),
    proof: &Bound<'py, PyTuple>,
    branch_type: &Bound<'py, PyType>,
    root: &Bound<'py, PyAny>,
    start: &Bound<'py, PyAny>,
    end: &Bound<'py, PyAny>,
    limits: PyLimits,
) -> PyResult<Verdict<'py>> {
    let (hasher, codec) = scheme_of(scheme.0, scheme.1)?;
    let (max_path_tokens, max_value_bytes, max_branches, max_keys, max_bytes) = limits;
    let request = Request {
        hasher,
        codec,
        limits: Limits { max_path_tokens, max_value_bytes, max_keys, max_bytes },
        keys: column_of(proof.get_item(0)?.cast_exact::<PyTuple>()?)?,
        values: column_of(proof.get_item(1)?.cast_exact::<PyTuple>()?)?,
        proof_end: optional_bytes_of(&proof.get_item(2)?)?,
        boundary: boundary_of(&proof.get_item(3)?, branch_type, max_branches)?,
        root: bytes_of(root)?,
        start: optional_bytes_of(start)?,
        end: optional_bytes_of(end)?,
    };
    if request.keys.len() != request.values.len() {
        return Err(PyTypeError::new_err("there are not as many values as keys"));
    }
    match py.detach(|| verify::verify(&request)) {
        Ok(shown) => shown_to_python(py, &shown),
        Err(Rejection { reason, detail }) => Ok(Verdict::Rejected(reason, detail)),
    }
}

fn boundary_of(
    boundary: &Bound<'_, PyAny>,
    branch_type: &Bound<'_, PyType>,
    max_branches: usize,
) -> PyResult<Vec<Branch<PyBackedBytes>>> {
    let boundary = boundary.cast_exact::<PyTuple>()?;
    if boundary.len() > max_branches {
        return Err(PyTypeError::new_err("a boundary has not as many branches"));
    }
    boundary.iter().map(|branch| branch_of(&branch, branch_type)).collect()
}

fn branch_of(branch: &Bound<'_, PyAny>, branch_type: &Bound<'_, PyType>) -> PyResult<Branch<PyBackedBytes>> {
    if !branch.get_type().is(branch_type) {
        return Err(PyTypeError::new_err("it is no branch"));
    }
    let branch = branch.cast::<PyTuple>()?;
    let mut children = Vec::new();
    for child in branch.get_item(2)?.cast_exact::<PyTuple>()?.iter() {
        let child = child.cast_exact::<PyTuple>()?;
        if child.len() != 2 {
            return Err(PyTypeError::new_err("a child is a token and an id"));
        }
        // An integer that is no byte is a hostile token, which the verification names.
        let token = child.get_item(0)?.cast_exact::<PyInt>()?.extract::<u8>().ok();
        children.push((token, bytes_of(&child.get_item(1)?)?));
    }
    Ok(Branch {
        path: bytes_of(&branch.get_item(0)?)?,
        digest: optional_bytes_of(&branch.get_item(1)?)?,
        children,
    })
}

fn shown_to_python<'py>(py: Python<'py>, shown: &Shown) -> PyResult<Verdict<'py>> {
    let Shown { closed, inside, frontier, leaves } = shown;
    let mut branches = Vec::with_capacity(inside.len());
    for index in inside {
        let path = PyBytes::new(py, closed.path(*index));
        branches.push(PyTuple::new(py, [path, PyBytes::new(py, closed.record(*index))])?);
    }
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for top in frontier {
        let (path, id, digest) = match top {
            Top::Branch(index) => (closed.path(*index), &closed.ids[*index], None),
            Top::Leaf(index) => (leaves.path(*index), &leaves.ids[*index], Some(&leaves.digests[*index])),
        };
        columns.0.push(PyBytes::new(py, path));
        columns.1.push(PyBytes::new(py, id));
        columns.2.push(digest.map(|digest| PyBytes::new(py, digest.as_slice())));
    }
    let columns = (PyList::new(py, columns.0)?, PyList::new(py, columns.1)?, PyList::new(py, columns.2)?);
    Ok(Verdict::Shown(PyTuple::new(py, branches)?, columns))
}

#[pymodule]
mod merklekernel {
    #[pymodule_export]
    use super::{Fold, hash_leaves, past_rows, verify_range};
    #[pymodule_export]
    const INTERFACE: u32 = super::INTERFACE;
}
