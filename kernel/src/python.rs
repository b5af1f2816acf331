//! What Python sees.  Arguments are held by reference while the interpreter lock is given away.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyMapping, PyTuple, PyType};

use crate::boundary::Range;
use crate::bucket;
use crate::fold::{self, Closed, HEAVY, Item, OutOfOrder, Parts};
use crate::hash::{Hasher, ValueDigest};
use crate::leaves::hash_all;
use crate::past::{PastRow, past_row};
use crate::path::Codec;
use crate::verify::{self, Branch, Limits, Rejection, Request, Shown, Top};
use crate::walk::{Changed, Step, Unreadable};

/// Which interface this is; the Python side refuses another one.
const INTERFACE: u32 = 2;
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
        let leaves = py.detach(|| hash_all(hasher, &keys, &values));
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
    require_equal(lengths)?;
    let length = lengths[0];
    Ok((0..length).step_by(PIECE).map(move |from| (from, (from + PIECE).min(length))))
}

fn require_equal(lengths: &[usize]) -> PyResult<()> {
    if lengths.iter().any(|length| *length != lengths[0]) {
        return Err(PyValueError::new_err("the columns differ in length"));
    }
    Ok(())
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

/// Return columns as items.
fn items_of<'py>(
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

fn item_of<'py>(
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
    let folded = py.detach(|| fold::fold_all(hasher, codec, &paths, items, &keys, &values));
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

/// Return the records of all branches that the pairs of a bucket make, by path.
#[pyfunction]
fn bucket_branches<'py>(
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
fn child_weight(record: &Bound<'_, PyBytes>, token: u8) -> PyResult<Option<u8>> {
    let parts = Parts::of(record.as_bytes()).ok_or_else(|| PyValueError::new_err("it is no record"))?;
    Ok(parts.slots().find(|slot| slot.token == token).map(|slot| slot.weight))
}

/// Return what of nodes lies strictly outside a range, as branches of a boundary, where anything does.
///
/// Raises ``ValueError`` when a record is none.
#[pyfunction]
fn trimmed<'py>(
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
struct Walk {
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

type PastRows<'py> = (Bound<'py, PyList>, Vec<usize>, Bound<'py, PyList>);

/// Return the rows of history of branches, with the places of those children that `met` knows as buckets; and
/// of children whose place is to be added, the number of the row and the slot, in the order in which they are
/// to be added.
#[pyfunction]
fn past_rows<'py>(
    py: Python<'py>,
    paths: &Bound<'py, PyList>,
    records: &Bound<'py, PyList>,
    new_records: &Bound<'py, PyList>,
    opened: &Bound<'py, PyMapping>,
    met: &Bound<'py, PyMapping>,
    token_bits: usize,
) -> PyResult<PastRows<'py>> {
    let (rows, slots, mut indexes) = (PyList::empty(py), PyList::empty(py), Vec::new());
    for (from, to) in pieces(&[paths.len(), records.len(), new_records.len()])? {
        let paths = column_of(&paths.get_slice(from, to))?;
        let records = column_of(&records.get_slice(from, to))?;
        let new_records = new_records.get_slice(from, to);
        let new_records = new_records.iter().map(|record| optional_bytes_of(&record));
        let new_records = new_records.collect::<PyResult<Vec<_>>>()?;
        let row_of = |((path, record), new_record): ((&PyBackedBytes, &PyBackedBytes), &Option<_>)| {
            past_row(path, record, new_record.as_ref().map(PyBackedBytes::as_ref))
        };
        let past: Vec<PastRow> =
            py.detach(|| paths.iter().zip(&records).zip(&new_records).map(row_of).collect());
        for (index, mut row) in past.into_iter().enumerate() {
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

/// Items as columns: paths, ids, digests and weights.
type ItemColumns<'py> = (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyByteArray>);

/// Add the place of a slot to a row, when it is known to have held a bucket; return whether it is.
fn add_bucket(
    row: &mut PastRow,
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

/// What `verify_range` returns: columns of what was shown, or a reason and a detail.
#[derive(IntoPyObject)]
enum Verdict<'py> {
    Shown(Bound<'py, PyDict>, ItemColumns<'py>),
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
    let columns = branch.get_item(2)?;
    let columns = columns.cast_exact::<PyTuple>()?;
    let mut children = Vec::with_capacity(columns.len());
    for child in columns.iter_borrowed() {
        let child = child.cast_exact::<PyTuple>()?;
        if child.len() != 2 {
            return Err(PyTypeError::new_err("a child is a token and an id"));
        }
        // An integer that is no byte is a hostile token, and an id may have any length: the verification names
        // them.
        let token = child.get_borrowed_item(0)?.cast_exact::<PyInt>()?.extract::<u8>().ok();
        let id = child.get_borrowed_item(1)?.cast_exact::<PyBytes>()?.as_bytes().try_into().ok();
        children.push((token, id));
    }
    Ok(Branch {
        path: bytes_of(&branch.get_item(0)?)?,
        digest: optional_bytes_of(&branch.get_item(1)?)?,
        children,
    })
}

fn shown_to_python<'py>(py: Python<'py>, shown: &Shown) -> PyResult<Verdict<'py>> {
    let Shown { closed, inside, frontier, leaves } = shown;
    let branches = PyDict::new(py);
    for index in inside {
        branches.set_item(PyBytes::new(py, closed.path(*index)), PyBytes::new(py, closed.record(*index)))?;
    }
    let (mut paths, mut ids, mut digests, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for top in frontier {
        let (path, id, digest, weight) = match top {
            Top::Branch(index) => (closed.path(*index), &closed.ids[*index], None, HEAVY),
            Top::Leaf(index) => {
                let digest = Some(leaves.digest(*index));
                (leaves.path(*index), leaves.id(*index), digest, leaves.weights[*index])
            }
        };
        paths.push(PyBytes::new(py, path));
        ids.push(PyBytes::new(py, id));
        digests.push(digest.map(|digest| PyBytes::new(py, digest.as_slice())));
        weights.push(weight);
    }
    let weights = PyByteArray::new(py, &weights);
    let frontier = (PyList::new(py, paths)?, PyList::new(py, ids)?, PyList::new(py, digests)?, weights);
    Ok(Verdict::Shown(branches, frontier))
}

#[pymodule]
mod merklekernel {
    #[pymodule_export]
    use super::{
        Fold, Walk, bucket_branches, child_weight, fold_all, hash_leaves, in_order, past_rows, sort_changes,
        trimmed, verify_range,
    };
    #[pymodule_export]
    const INTERFACE: u32 = super::INTERFACE;
}
