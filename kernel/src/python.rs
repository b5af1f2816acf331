//! What Python sees of the fold, and the module itself.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList};

use crate::columns::{
    Columns, ItemColumns, append, column_of, hasher_of, items_of, pieces, require_equal, scheme_of,
};
use crate::fold::{self, Closed, OutOfOrder};
use crate::leaves::hash_all;
use crate::whole;

/// Which interface this is; the Python side refuses another one.
const INTERFACE: u32 = 3;

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
        let leaves = py.detach(|| hash_all(hasher, &keys, &values));
        for (digest, id) in &leaves {
            digests.append(PyBytes::new(py, digest.as_slice()))?;
            ids.append(PyBytes::new(py, id))?;
        }
    }
    Ok((digests, ids))
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
        Ok(Fold { fold: fold::Fold::new(hasher, codec, false) })
    }

    /// Take the next stretch, as columns; return paths, records and ids of the branches that closed.
    fn feed<'py>(
        &mut self,
        py: Python<'py>,
        paths: &Bound<'py, PyList>,
        ids: &Bound<'py, PyList>,
        digests: &Bound<'py, PyList>,
        weights: &Bound<'py, PyByteArray>,
        records: &Bound<'py, PyDict>,
    ) -> PyResult<Columns<'py>> {
        let columns = (PyList::empty(py), PyList::empty(py), PyList::empty(py));
        let weights = weights.to_vec();
        for (from, to) in pieces(&[paths.len(), ids.len(), digests.len(), weights.len()])? {
            let paths = paths.get_slice(from, to);
            let (ids, digests) = (ids.get_slice(from, to), digests.get_slice(from, to));
            let weights = PyByteArray::new(py, &weights[from..to]);
            let items = items_of(&paths, &ids, &digests, &weights, records)?;
            let paths = column_of(&paths)?;
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

/// Fold items and pairs, in any order; return the root, None of an empty trie, and the branches.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are columns")]
fn fold_all<'py>(
    py: Python<'py>,
    hasher: &str,
    branch_factor: usize,
    paths: &Bound<'py, PyList>,
    ids: &Bound<'py, PyList>,
    digests: &Bound<'py, PyList>,
    weights: &Bound<'py, PyByteArray>,
    records: &Bound<'py, PyDict>,
    keys: &Bound<'py, PyList>,
    values: &Bound<'py, PyList>,
) -> PyResult<(Option<Bound<'py, PyBytes>>, Columns<'py>)> {
    let (hasher, codec) = scheme_of(hasher, branch_factor)?;
    let items = items_of(paths, ids, digests, weights, records)?;
    let (keys, values) = (column_of(keys)?, column_of(values)?);
    require_equal(&[keys.len(), values.len()])?;
    let paths = column_of(paths)?;
    let folded = py.detach(|| whole::fold_all(hasher, codec, &paths, items, &keys, &values));
    let (root, closed) = folded
        .map_err(|_: OutOfOrder| PyValueError::new_err("the stream is not in strictly ascending order"))?;
    let columns = (PyList::empty(py), PyList::empty(py), PyList::empty(py));
    append(py, &columns, &closed)?;
    Ok((root.map(|root| PyBytes::new(py, &root)), columns))
}

/// All keys, those that get a value, their values, the others; and how long the longest key and value are.
type Sorted<'py> =
    (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>, usize, usize);

/// Return changes as columns, ascending by key.
///
/// Raises ``TypeError`` for what is no bytes.
#[pyfunction]
fn sort_changes<'py>(py: Python<'py>, changes: &Bound<'py, PyDict>) -> PyResult<Sorted<'py>> {
    let is_wrong = || PyTypeError::new_err("changes map bytes to bytes, or to None to delete");
    let mut rows = Vec::with_capacity(changes.len());
    let (mut longest_key, mut longest_value) = (0, 0);
    for (key, value) in changes.iter() {
        let key = key.cast_into_exact::<PyBytes>().map_err(|_| is_wrong())?;
        longest_key = longest_key.max(key.as_bytes().len());
        if let Ok(value) = value.cast_exact::<PyBytes>() {
            longest_value = longest_value.max(value.as_bytes().len());
        } else if !value.is_none() {
            return Err(is_wrong());
        }
        rows.push((key, value));
    }
    rows.sort_by(|one, other| one.0.as_bytes().cmp(other.0.as_bytes()));
    let keys = PyList::new(py, rows.iter().map(|(key, _)| key))?;
    let is_put = |row: &&(Bound<'py, PyBytes>, Bound<'py, PyAny>)| !row.1.is_none();
    let deleted: Vec<_> = rows.iter().filter(|row| !is_put(row)).map(|(key, _)| key).collect();
    let puts: Vec<_> = rows.iter().filter(is_put).collect();
    let put_keys =
        if deleted.is_empty() { keys.clone() } else { PyList::new(py, puts.iter().map(|(key, _)| key))? };
    let put_values = PyList::new(py, puts.iter().map(|(_, value)| value))?;
    Ok((keys, put_keys, put_values, PyList::new(py, deleted)?, longest_key, longest_value))
}

/// Return columns of items ascending by path.
#[pyfunction]
fn in_order<'py>(
    py: Python<'py>,
    paths: &Bound<'py, PyList>,
    ids: &Bound<'py, PyList>,
    digests: &Bound<'py, PyList>,
    weights: &Bound<'py, PyByteArray>,
) -> PyResult<ItemColumns<'py>> {
    let (keys, all_weights) = (column_of(paths)?, weights.to_vec());
    require_equal(&[keys.len(), ids.len(), digests.len(), all_weights.len()])?;
    let mut order: Vec<usize> = (0..keys.len()).collect();
    py.detach(|| order.sort_by(|one, other| keys[*one].cmp(&keys[*other])));
    let sorted = |column: &Bound<'py, PyList>| -> PyResult<Bound<'py, PyList>> {
        let cells = order.iter().map(|index| column.get_item(*index)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, cells)
    };
    let weights: Vec<u8> = order.iter().map(|index| all_weights[*index]).collect();
    Ok((sorted(paths)?, sorted(ids)?, sorted(digests)?, PyByteArray::new(py, &weights)))
}

#[pymodule]
mod merklekernel {
    #[pymodule_export]
    use super::{Fold, fold_all, hash_leaves, in_order, sort_changes};
    #[pymodule_export]
    use crate::python_trie::{Walk, bucket_branches, child_weight, delta_rows, trimmed};
    #[pymodule_export]
    use crate::python_verify::verify_range;
    #[pymodule_export]
    const INTERFACE: u32 = super::INTERFACE;
}
