//! What Python sees of the verification of range proofs.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyTuple, PyType};

use crate::columns::{ItemColumns, bytes_of, column_of, optional_bytes_of, scheme_of};
use crate::fold::HEAVY;
use crate::verify::{self, Branch, Limits, Rejection, Request, Shown, Top};

/// What `verify_range` returns: columns of what was shown, or a reason and a detail.
#[derive(IntoPyObject)]
pub(crate) enum Verdict<'py> {
    Shown(Bound<'py, PyDict>, ItemColumns<'py>),
    Rejected(&'static str, String),
}

/// What bounds a proof, as Python passes it: tokens of a path, bytes of a value, branches of a boundary, and
/// the keys and bytes that were asked for.
pub(crate) type PyLimits = (usize, usize, usize, Option<usize>, Option<usize>);

/// Verify a range proof.
///
/// Raises ``TypeError`` for what has not the form of a proof; the pure kernel then says where.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are those of the pure kernel")]
pub(crate) fn verify_range<'py>(
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
    let Shown { closed, inside, top_nodes, leaves } = shown;
    let branches = PyDict::new(py);
    for index in inside {
        branches.set_item(PyBytes::new(py, closed.path(*index)), PyBytes::new(py, closed.record(*index)))?;
    }
    let (mut paths, mut ids, mut digests, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for top in top_nodes {
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
    let top_nodes = (PyList::new(py, paths)?, PyList::new(py, ids)?, PyList::new(py, digests)?, weights);
    Ok(Verdict::Shown(branches, top_nodes))
}
