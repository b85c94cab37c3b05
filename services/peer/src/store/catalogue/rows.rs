//! Checks rows of several columns before redb reads them. Given bytes that are not a row of the
//! type, redb panics, or allocates memory for as many elements as a damaged list claims to have.

use std::marker::PhantomData;

use redb::{TypeName, Value};

/// The type of a row that is read as none if its bytes are damaged. A none cannot be written.
#[derive(Debug)]
pub(in crate::store) struct Checked<R>(PhantomData<R>);

impl<R: Sound + 'static> Value for Checked<R> {
    type SelfType<'a> = Option<R::SelfType<'a>>;
    type AsBytes<'a> = R::AsBytes<'a>;

    fn fixed_width() -> Option<usize> {
        R::fixed_width()
    }

    fn from_bytes<'a>(bytes: &'a [u8]) -> Option<R::SelfType<'a>>
    where
        Self: 'a,
    {
        R::is_sound(bytes).then(|| R::from_bytes(bytes))
    }

    fn as_bytes<'a, 'b: 'a>(row: &'a Option<R::SelfType<'b>>) -> R::AsBytes<'a> {
        R::as_bytes(row.as_ref().expect("only rows that exist are written"))
    }

    /// The row's own, so that a table is the same with and without the check.
    fn type_name() -> TypeName {
        R::type_name()
    }
}

/// A type whose bytes can be checked before redb reads them.
pub(in crate::store) trait Sound: Value {
    /// Whether redb could have written these bytes.
    fn is_sound(bytes: &[u8]) -> bool;
}

impl Sound for &str {
    fn is_sound(bytes: &[u8]) -> bool {
        str::from_utf8(bytes).is_ok()
    }
}

impl Sound for bool {
    fn is_sound(bytes: &[u8]) -> bool {
        matches!(bytes, [0 | 1])
    }
}

macro_rules! sound_numbers {
    ($($number:ty)*) => {$(
        impl Sound for $number {
            fn is_sound(bytes: &[u8]) -> bool {
                bytes.len() == size_of::<Self>()
            }
        }
    )*};
}

sound_numbers!(u8 u32 u64);

impl Sound for &[u8] {
    fn is_sound(_: &[u8]) -> bool {
        true
    }
}

/// For a value without a fixed width.
impl Sound for Option<&[u8]> {
    fn is_sound(bytes: &[u8]) -> bool {
        matches!(bytes, [0] | [1, ..])
    }
}

impl<T: Sound> Sound for Vec<T> {
    fn is_sound(bytes: &[u8]) -> bool {
        let Some((count, mut rest)) = split_length(bytes) else { return false };
        for _ in 0..count {
            let Some((length, after)) = length_of::<T>(rest) else { return false };
            let Some((element, after)) = after.split_at_checked(length) else { return false };
            if !T::is_sound(element) {
                return false;
            }
            rest = after;
        }
        rest.is_empty()
    }
}

/// A row consists of the lengths of its columns, except the last and those of a fixed width, and
/// then the columns.
macro_rules! sound_rows {
    ($(($($column:ident)+) $last:ident;)*) => {$(
        impl<$($column: Sound,)+ $last: Sound> Sound for ($($column,)+ $last)
        where
            Self: Value,
        {
            fn is_sound(bytes: &[u8]) -> bool {
                let is_sound = || {
                    let rest = bytes;
                    $(
                        #[expect(non_snake_case, reason = "the length of that column")]
                        let ($column, rest) = length_of::<$column>(rest)?;
                    )+
                    $(
                        let (column, rest) = rest.split_at_checked($column)?;
                        $column::is_sound(column).then_some(())?;
                    )+
                    Some($last::is_sound(rest))
                };
                is_sound().unwrap_or(false)
            }
        }
    )*};
}

sound_rows! {
    (A) B;
    (A B C) D;
    (A B C D E F G) H;
}

/// The length of the next value of a type, and the bytes after that length if it is written.
fn length_of<T: Value>(bytes: &[u8]) -> Option<(usize, &[u8])> {
    T::fixed_width().map_or_else(|| split_length(bytes), |width| Some((width, bytes)))
}

/// A number of bytes or elements, and the bytes after it. The number takes one byte, or three or
/// five if the first is 254 or 255.
fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    Some(match first {
        254 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u16::from_le_bytes(*length).into(), rest)
        }
        255 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        length => (usize::from(*length), rest),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::TableDefinition;
    use shoal_core::content::ContentId;

    use super::*;
    use crate::store::{
        StoreError,
        catalogue::database::{Database, OptionsRow, PathsRow, Row, Texts},
    };

    /// A row as raw bytes.
    #[derive(Debug)]
    struct Raw<R>(PhantomData<R>);

    impl<R: Value + 'static> Value for Raw<R> {
        type SelfType<'a> = &'a [u8];
        type AsBytes<'a> = &'a [u8];

        fn fixed_width() -> Option<usize> {
            None
        }

        fn from_bytes<'a>(bytes: &'a [u8]) -> &'a [u8]
        where
            Self: 'a,
        {
            bytes
        }

        fn as_bytes<'a, 'b: 'a>(bytes: &'a &'b [u8]) -> &'a [u8] {
            bytes
        }

        fn type_name() -> TypeName {
            R::type_name()
        }
    }

    #[test]
    fn a_damaged_row_is_an_error_instead_of_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        drop(Database::open(&path).unwrap());
        let redb = redb::Database::open(&path).unwrap();
        let transaction = redb.begin_write().unwrap();
        let id = ContentId::from_bytes([1; 32]);
        // A text longer than the row, and a list longer than memory.
        let contents = TableDefinition::<&[u8; 32], Raw<Row>>::new("contents");
        let row = &[200, b'a'][..];
        transaction.open_table(contents).unwrap().insert(id.as_bytes(), row).unwrap();
        let row = &[255, 255, 255, 255, 255][..];
        let options = TableDefinition::<&[u8; 32], Raw<OptionsRow>>::new("options");
        transaction.open_table(options).unwrap().insert(id.as_bytes(), row).unwrap();
        let ring_nodes = TableDefinition::<&[u8; 32], Raw<Texts>>::new("ring_nodes");
        transaction.open_table(ring_nodes).unwrap().insert(id.as_bytes(), row).unwrap();
        let exports = TableDefinition::<&[u8; 32], Raw<PathsRow>>::new("exports");
        transaction.open_table(exports).unwrap().insert(id.as_bytes(), row).unwrap();
        transaction.commit().unwrap();
        drop(redb);
        let database = Database::open(&path).unwrap();
        assert!(matches!(database.entries(), Err(StoreError::Database { .. })));
        assert!(matches!(database.options(id), Err(StoreError::Database { .. })));
        assert!(matches!(database.exports(id), Err(StoreError::Database { .. })));
    }

    /// Bytes that are not taken for damaged are read, and read the same after they were written.
    fn check<R: Sound + 'static>(bytes: &[u8]) {
        let Some(row) = Checked::<R>::from_bytes(bytes) else { return };
        let row = Some(row);
        let written = Checked::<R>::as_bytes(&row);
        let again = Checked::<R>::from_bytes(written.as_ref());
        assert_eq!(format!("{again:?}"), format!("{row:?}"));
    }

    proptest! {
        #[test]
        fn a_written_row_is_read(
            text in ".{0,300}",
            number: u64,
            flag: bool,
            texts in prop::collection::vec(".{0,300}", 0..4),
            paths in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
        ) {
            let path = flag.then_some(text.as_bytes());
            let row = Some((text.as_bytes(), number, number, 7, flag, number, 1, path));
            let written = Checked::<Row>::as_bytes(&row);
            prop_assert_eq!(&Checked::<Row>::from_bytes(&written), &row);
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let numbered: Vec<(&str, u8)> = texts.iter().copied().zip(0..).collect();
            let row = Some((texts, flag, true, numbered));
            let written = Checked::<OptionsRow>::as_bytes(&row);
            prop_assert_eq!(&Checked::<OptionsRow>::from_bytes(&written), &row);
            let row = Some(paths.iter().map(Vec::as_slice).collect());
            let written = Checked::<PathsRow>::as_bytes(&row);
            prop_assert_eq!(&Checked::<PathsRow>::from_bytes(&written), &row);
        }

        #[test]
        fn no_bytes_cause_a_panic(
            bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..60),
        ) {
            check::<Row>(&bytes);
            check::<OptionsRow>(&bytes);
            check::<Texts>(&bytes);
            check::<PathsRow>(&bytes);
        }
    }
}
