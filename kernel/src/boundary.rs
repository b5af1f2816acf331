//! Which slots and paths lie outside a range, as `merkledb/kernel/boundary.py` tells it.

/// More than any token.
const ALL_TOKENS: usize = 256;

/// The paths of a range's bounds; None is unbounded.
pub struct Range<'r> {
    pub start: Option<&'r [u8]>,
    pub end: Option<&'r [u8]>,
}

impl Range<'_> {
    /// Return whether `path` itself lies outside.
    pub fn is_outside(&self, path: &[u8]) -> bool {
        self.start.is_some_and(|start| path < start) || self.end.is_some_and(|end| path > end)
    }

    /// Return two tokens: the slots of `path` below the first and above the second lie outside.
    ///
    /// Where there is no first one, no slots before the range do; where there is no second one, all slots do.
    pub fn outside_slots(&self, path: &[u8]) -> (Option<usize>, Option<usize>) {
        let mut low = None;
        if let Some(start) = self.start.filter(|start| path < *start) {
            low = Some(if start.starts_with(path) { usize::from(start[path.len()]) } else { ALL_TOKENS });
        }
        let high = match self.end {
            Some(end) if end.starts_with(path) => end.get(path.len()).copied().map(usize::from),
            Some(end) if path > end => None,
            _ => Some(ALL_TOKENS),
        };
        (low, high)
    }
}
