//! What a change-log row says, and what several of them about one row come to.

/// What a change-log row records. The numbers are stored in the `type` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The row was deleted.
    Delete,
    /// The row was inserted.
    Whole,
    /// Some columns were updated.
    Cells,
    /// Nothing: kept so that ids go on rising.
    Done,
    /// The row was updated in a way that travels as a whole row.
    Rewritten,
}

impl ChangeKind {
    /// The stored number. 0 and 1 take no space in an SQLite record, and inserts and deletes are many.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::Delete => 0,
            Self::Whole => 1,
            Self::Cells => 2,
            Self::Done => 3,
            Self::Rewritten => 4,
        }
    }

    /// From the stored number.
    #[must_use]
    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Delete),
            1 => Some(Self::Whole),
            2 => Some(Self::Cells),
            3 => Some(Self::Done),
            4 => Some(Self::Rewritten),
            _ => None,
        }
    }
}

/// A set of columns, by position, of a table with at most [`ColumnMask::MAX_COLUMNS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ColumnMask(pub u64);

impl ColumnMask {
    /// A table with more columns is always sent whole: the mask must fit a positive SQLite integer.
    pub const MAX_COLUMNS: usize = 63;

    /// Whether the column at this position is in the set.
    #[must_use]
    pub const fn has(self, column: usize) -> bool {
        column < 64 && self.0 >> column & 1 == 1
    }

    /// The set with the column at this position, which must be below 64.
    #[must_use]
    pub const fn with(self, column: usize) -> Self {
        Self(self.0 | 1 << (column & 63))
    }

    /// The columns of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The positions in the set, rising.
    pub fn columns(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |&c| self.has(c))
    }

    /// How many columns are in the set.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether no column is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What the change-log rows of one key come to, in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduced {
    /// The row is gone.
    Delete,
    /// The row's whole present content counts.
    Whole,
    /// The present content of these columns counts, where the row exists.
    Cells(ColumnMask),
}

impl Reduced {
    /// The first change of a key.
    #[must_use]
    pub const fn first(kind: ChangeKind, mask: ColumnMask) -> Option<Self> {
        match kind {
            ChangeKind::Delete => Some(Self::Delete),
            ChangeKind::Whole | ChangeKind::Rewritten => Some(Self::Whole),
            ChangeKind::Cells => Some(Self::Cells(mask)),
            ChangeKind::Done => None,
        }
    }

    /// This state after one more change. An update after an insert or a delete in one scan means that the row
    /// was made anew, so it is sent whole.
    #[must_use]
    pub const fn then(self, kind: ChangeKind, mask: ColumnMask) -> Self {
        match (self, kind) {
            (_, ChangeKind::Delete) => Self::Delete,
            (_, ChangeKind::Whole | ChangeKind::Rewritten) => Self::Whole,
            (Self::Cells(before), ChangeKind::Cells) => Self::Cells(ColumnMask(before.0 | mask.0)),
            (_, ChangeKind::Cells) => Self::Whole,
            (before, ChangeKind::Done) => before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduces_in_order() {
        let m = ColumnMask;
        let cells = Reduced::first(ChangeKind::Cells, m(1)).unwrap();
        assert_eq!(cells.then(ChangeKind::Cells, m(4)), Reduced::Cells(m(5)));
        assert_eq!(cells.then(ChangeKind::Delete, m(0)), Reduced::Delete);
        assert_eq!(
            Reduced::Delete.then(ChangeKind::Cells, m(1)),
            Reduced::Whole
        );
        assert_eq!(
            Reduced::Delete.then(ChangeKind::Whole, m(0)),
            Reduced::Whole
        );
        assert_eq!(Reduced::Whole.then(ChangeKind::Cells, m(1)), Reduced::Whole);
        assert_eq!(Reduced::first(ChangeKind::Done, m(0)), None);
    }

    #[test]
    fn codes_round_trip() {
        for kind in [
            ChangeKind::Delete,
            ChangeKind::Whole,
            ChangeKind::Cells,
            ChangeKind::Done,
            ChangeKind::Rewritten,
        ] {
            assert_eq!(ChangeKind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(ChangeKind::from_code(9), None);
    }

    #[test]
    fn masks() {
        assert_eq!(ColumnMask(0b101).columns().collect::<Vec<_>>(), vec![0, 2]);
        assert_eq!(
            ColumnMask(0b111).without(ColumnMask(0b010)),
            ColumnMask(0b101)
        );
        assert!(!ColumnMask(u64::MAX).has(64));
    }
}
