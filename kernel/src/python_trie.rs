//! What Python sees of reading a stored trie: boundaries, buckets, the walk to changes, rows of history.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyTuple, PyType};

use crate::boundary::Range;
use crate::bucket;
use crate::columns::{bytes_of, column_of, list_of, optional_bytes_of, pieces, require_equal, scheme_of};
use crate::delta::{DeltaRow, delta_row};
use crate::fold::Parts;
use crate::walk::{Changed, Step, Unreadable};

/// Return the records of all branches that the pairs of a bucket make, by path.
#[pyfunction]
pub(crate) fn bucket_branches<'py>(
    py: Python<'py>,
    hasher: &str,
    branch_factor: usize,
    keys: &Bound<'py, PyList>,
    values: &Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyDict>> {
    let (hasher, codec) = scheme_of(hasher, branch_factor)?;
    let (keys, values) = (column_of(keys)?, column_of(values)?);
    let closed = bucket::branches(hasher, codec, &keys, &values);
    let closed =
        closed.map_err(|_| PyValueError::new_err("the stream is not in strictly ascending order"))?;
    let records = PyDict::new(py);
    for index in 0..closed.len() {
        records.set_item(PyBytes::new(py, closed.path(index)), PyBytes::new(py, closed.record(index)))?;
    }
    Ok(records)
}

/// Return the weight of the child of a record at a token; None when there is none.
///
/// Raises ``ValueError`` when it is no record.
#[pyfunction]
pub(crate) fn child_weight(record: &Bound<'_, PyBytes>, token: u8) -> PyResult<Option<u8>> {
    let parts = Parts::of(record.as_bytes()).ok_or_else(|| PyValueError::new_err("it is no record"))?;
    Ok(parts.slots().find(|slot| slot.token == token).map(|slot| slot.weight))
}

/// Return what of nodes lies strictly outside a range, as branches of a boundary, where anything does.
///
/// Raises ``ValueError`` when a record is none.
#[pyfunction]
pub(crate) fn trimmed<'py>(
    py: Python<'py>,
    branch_type: &Bound<'py, PyType>,
    paths: &Bound<'py, PyList>,
    records: &Bound<'py, PyList>,
    digests: &Bound<'py, PyList>,
    start: &Bound<'py, PyAny>,
    end: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyTuple>> {
    let (start, end) = (optional_bytes_of(start)?, optional_bytes_of(end)?);
    let range = Range { start: start.as_deref(), end: end.as_deref() };
    let mut branches = Vec::with_capacity(paths.len());
    for ((path, record), digest) in paths.iter().zip(records.iter()).zip(digests.iter()) {
        let (tokens, record) = (bytes_of(&path)?, optional_bytes_of(&record)?);
        let (mut digest, mut children) = (digest, Vec::new());
        if let Some(record) = &record {
            let parts = Parts::of(record).ok_or_else(|| PyValueError::new_err("a row is no record"))?;
            let own = parts.digest().filter(|_| range.is_outside(&tokens));
            digest = own.map(|own| PyBytes::new(py, own)).into_pyobject(py)?;
            let (low, high) = range.outside_slots(&tokens);
            for slot in parts.slots().filter(|slot| {
                let token = usize::from(slot.token);
                low.is_some_and(|low| token < low) || high.is_none_or(|high| token > high)
            }) {
                children.push((slot.token, PyBytes::new(py, slot.id)).into_pyobject(py)?);
            }
        }
        if !digest.is_none() || !children.is_empty() {
            branches.push(branch_type.call1((path, digest, PyTuple::new(py, children)?))?);
        }
    }
    PyTuple::new(py, branches)
}

/// The walk to where changes lie.
#[pyclass(module = "merklekernel", frozen)]
pub(crate) struct Walk {
    changed: Changed,
}

type Slots<'py> = (Bound<'py, PyList>, Bound<'py, PyList>, Vec<usize>, Vec<usize>);
type Buckets<'py> = (Bound<'py, PyList>, Vec<u16>);
type Opened<'py> = (Vec<usize>, Vec<Option<usize>>, Vec<Option<Bound<'py, PyBytes>>>, Vec<u16>);

#[pymethods]
impl Walk {
    #[new]
    fn new(branch_factor: usize, keys: &Bound<'_, PyList>) -> PyResult<Walk> {
        let (_, codec) = scheme_of("blake3", branch_factor)?;
        Ok(Walk { changed: Changed::of(codec, &column_of(keys)?) })
    }

    /// Open branches, as columns, as far as changes lie at or below them.
    ///
    /// Raises ``ValueError`` when a record is none.
    fn step<'py>(
        &self,
        py: Python<'py>,
        paths: &Bound<'py, PyList>,
        records: &Bound<'py, PyList>,
        lows: Vec<usize>,
        highs: Vec<usize>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let paths = column_of(paths)?;
        let records = records.iter().map(|record| optional_bytes_of(&record));
        let records = records.collect::<PyResult<Vec<_>>>()?;
        require_equal(&[paths.len(), records.len(), lows.len(), highs.len()])?;
        let stepped: Result<Step, Unreadable> = py.detach(|| {
            let mut step = Step::default();
            for (number, (path, record)) in paths.iter().zip(&records).enumerate() {
                if let Some(record) = record {
                    step.open(&self.changed, number, path, record, (lows[number], highs[number]))?;
                }
            }
            Ok(step)
        });
        let step = stepped.map_err(|Unreadable| PyValueError::new_err("a row is no record"))?;
        let digests =
            step.digests.iter().map(|digest| digest.as_ref().map(|digest| PyBytes::new(py, digest)));
        let wide = |weights: Vec<u8>| weights.into_iter().map(u16::from).collect::<Vec<_>>();
        let opened: Opened = (step.opened, step.own, digests.collect(), wide(step.weights));
        let slots: Slots =
            (list_of(py, step.slots.iter())?, list_of(py, step.ids.iter())?, step.lows, step.highs);
        let buckets: Buckets = (list_of(py, step.bucket_slots.iter())?, wide(step.bucket_weights));
        let columns = [opened.into_pyobject(py)?, slots.into_pyobject(py)?, buckets.into_pyobject(py)?];
        PyTuple::new(py, columns.iter().flat_map(PyTupleMethods::iter).collect::<Vec<_>>())
    }
}

pub(crate) type DeltaRows<'py> = (Bound<'py, PyList>, Vec<usize>, Bound<'py, PyList>);

/// Return the rows of history of branches, with the places of those children that `met` knows as buckets; and
/// of children whose place is to be added, the number of the row and the slot, in the order in which they are
/// to be added.
#[pyfunction]
pub(crate) fn delta_rows<'py>(
    py: Python<'py>,
    paths: &Bound<'py, PyList>,
    records: &Bound<'py, PyList>,
    new_records: &Bound<'py, PyList>,
    opened: &Bound<'py, PyMapping>,
    met: &Bound<'py, PyMapping>,
    token_bits: usize,
) -> PyResult<DeltaRows<'py>> {
    let (rows, slots, mut indexes) = (PyList::empty(py), PyList::empty(py), Vec::new());
    for (from, to) in pieces(&[paths.len(), records.len(), new_records.len()])? {
        let paths = column_of(&paths.get_slice(from, to))?;
        let records = column_of(&records.get_slice(from, to))?;
        let new_records = new_records.get_slice(from, to);
        let new_records = new_records.iter().map(|record| optional_bytes_of(&record));
        let new_records = new_records.collect::<PyResult<Vec<_>>>()?;
        let row_of = |((path, record), new_record): ((&PyBackedBytes, &PyBackedBytes), &Option<_>)| {
            delta_row(path, record, new_record.as_ref().map(PyBackedBytes::as_ref))
        };
        let deltas: Vec<DeltaRow> =
            py.detach(|| paths.iter().zip(&records).zip(&new_records).map(row_of).collect());
        for (index, mut row) in deltas.into_iter().enumerate() {
            for slot in std::mem::take(&mut row.slots) {
                let slot = PyBytes::new(py, &slot);
                if !opened.contains(&slot)? && !add_bucket(&mut row, &slot, met, token_bits)? {
                    slots.append(slot)?;
                    indexes.push(from + index);
                }
            }
            rows.append(PyBytes::new(py, &row.row))?;
        }
    }
    Ok((rows, indexes, slots))
}

/// Add the place of a slot to a row, when it is known to have held a bucket; return whether it is.
fn add_bucket(
    row: &mut DeltaRow,
    slot: &Bound<'_, PyBytes>,
    met: &Bound<'_, PyMapping>,
    token_bits: usize,
) -> PyResult<bool> {
    let found = met.call_method1("get", (slot,))?;
    let Ok(pairs) = found.cast_exact::<PyList>() else { return Ok(false) };
    let slot = slot.as_bytes();
    for pair in pairs.iter() {
        let key = bytes_of(&pair.cast_exact::<PyTuple>()?.get_item(0)?)?;
        row.add_key(slot, key.get(slot.len() * token_bits / 8..).unwrap_or_default());
    }
    Ok(true)
}
