//! Columns of Python objects: taken by reference, so that they can be read while the interpreter lock is given
//! away, and made of what the kernel found.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyTuple};

use crate::fold::{Closed, Item};
use crate::hash::{Hasher, ValueDigest};
use crate::path::Codec;

/// So many rows of a column are taken from Python at a time.
const PIECE: usize = 2048;

pub(crate) fn hasher_of(name: &str) -> PyResult<Hasher> {
    Hasher::named(name).ok_or_else(|| PyValueError::new_err("unknown hasher"))
}

pub(crate) fn scheme_of(hasher: &str, branch_factor: usize) -> PyResult<(Hasher, Codec)> {
    let hasher = hasher_of(hasher)?;
    let codec = Codec::of(branch_factor).ok_or_else(|| PyValueError::new_err("unknown branch factor"))?;
    Ok((hasher, codec))
}

pub(crate) fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    let bytes = value.cast_exact::<PyBytes>().map_err(|_| PyTypeError::new_err("it is no bytes"))?;
    Ok(PyBackedBytes::from(bytes.clone()))
}

pub(crate) fn optional_bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Option<PyBackedBytes>> {
    if value.is_none() { Ok(None) } else { bytes_of(value).map(Some) }
}

pub(crate) fn column_of(column: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedBytes>> {
    if let Ok(list) = column.cast::<PyList>() {
        return list.iter().map(|value| bytes_of(&value)).collect();
    }
    column.cast::<PyTuple>()?.iter().map(|value| bytes_of(&value)).collect()
}

pub(crate) fn list_of<B: AsRef<[u8]>>(
    py: Python<'_>,
    column: impl ExactSizeIterator<Item = B>,
) -> PyResult<Bound<'_, PyList>> {
    PyList::new(py, column.map(|bytes| PyBytes::new(py, bytes.as_ref())))
}

/// Return where columns are cut, so that what is taken from Python stays in the processor's cache until it is
/// used.
pub(crate) fn pieces(lengths: &[usize]) -> PyResult<impl Iterator<Item = (usize, usize)> + use<>> {
    require_equal(lengths)?;
    let length = lengths[0];
    Ok((0..length).step_by(PIECE).map(move |from| (from, (from + PIECE).min(length))))
}

pub(crate) fn require_equal(lengths: &[usize]) -> PyResult<()> {
    if lengths.iter().any(|length| *length != lengths[0]) {
        return Err(PyValueError::new_err("the columns differ in length"));
    }
    Ok(())
}

pub(crate) type Columns<'py> = (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>);

/// Append branches that closed to columns of paths, records and ids.
pub(crate) fn append(py: Python<'_>, columns: &Columns<'_>, closed: &Closed) -> PyResult<()> {
    let (paths, records, ids) = columns;
    for (index, id) in closed.ids.iter().enumerate() {
        paths.append(PyBytes::new(py, closed.path(index)))?;
        records.append(PyBytes::new(py, closed.record(index)))?;
        ids.append(PyBytes::new(py, id))?;
    }
    Ok(())
}

/// Return columns as items.
pub(crate) fn items_of<'py>(
    paths: &Bound<'py, PyList>,
    ids: &Bound<'py, PyList>,
    digests: &Bound<'py, PyList>,
    weights: &Bound<'py, PyByteArray>,
    records: &Bound<'py, PyDict>,
) -> PyResult<Vec<Item<PyBackedBytes>>> {
    let weights = weights.to_vec();
    require_equal(&[paths.len(), ids.len(), digests.len(), weights.len()])?;
    let rows = paths.iter().zip(ids.iter()).zip(digests.iter()).zip(weights);
    rows.map(|(((path, id), digest), weight)| item_of(&bytes_of(&path)?, &id, &digest, weight, records))
        .collect()
}

pub(crate) fn item_of<'py>(
    path: &PyBackedBytes,
    id: &Bound<'py, PyAny>,
    digest: &Bound<'py, PyAny>,
    weight: u8,
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
        return Ok(Item::Record(digest, weight, record.map(|record| bytes_of(&record)).transpose()?));
    };
    if id.is_empty() {
        return Ok(Item::Deleted);
    }
    let id = id[..].try_into().map_err(|_| PyValueError::new_err("an id has 32 bytes"))?;
    Ok(Item::Node(id, digest, weight))
}

/// Items as columns: paths, ids, digests and weights.
pub(crate) type ItemColumns<'py> =
    (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyByteArray>);
