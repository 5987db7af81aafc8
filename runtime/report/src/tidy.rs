//! Tidy columns as Apache Parquet, which pandas, Polars, R and DuckDB read with their types.

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;
use std::sync::Arc;

/// A column; what is missing is null.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Texts.
    Text(Vec<Option<String>>),
    /// Numbers; not a number stays one.
    Number(Vec<Option<f64>>),
    /// Yes or no.
    Flag(Vec<Option<bool>>),
}

/// Why a table could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the Parquet table cannot be written: {0}")]
pub struct Error(#[from] parquet::errors::ParquetError);

/// A Parquet file of columns of the same length, in one row group.
///
/// # Errors
/// Columns of different lengths.
pub fn parquet(columns: &[(String, Cells)]) -> Result<Vec<u8>, Error> {
    let fields = columns.iter().map(|(name, cells)| {
        let (physical, logical) = match cells {
            Cells::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Cells::Number(_) => (Physical::DOUBLE, None),
            Cells::Flag(_) => (Physical::BOOLEAN, None),
        };
        let field = Type::primitive_type_builder(name, physical);
        field.with_logical_type(logical).with_repetition(Repetition::OPTIONAL).build().map(Arc::new)
    });
    let schema = Type::group_type_builder("metrics").with_fields(fields.collect::<Result<_, _>>()?).build()?;
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(WriterProperties::default()))?;
    let mut group = file.next_row_group()?;
    for (_, cells) in columns {
        let Some(mut writer) = group.next_column()? else { break };
        put(&mut writer, cells)?;
        writer.close()?;
    }
    group.close()?;
    file.close()?;
    Ok(bytes)
}

fn put(writer: &mut SerializedColumnWriter<'_>, cells: &Cells) -> Result<(), Error> {
    /// Values that are there, and for every row whether it has one.
    fn split<T: Clone>(cells: &[Option<T>]) -> (Vec<T>, Vec<i16>) {
        (cells.iter().flatten().cloned().collect(), cells.iter().map(|cell| i16::from(cell.is_some())).collect())
    }
    match cells {
        Cells::Text(cells) => {
            let (values, levels) = split(cells);
            let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(text.as_str())).collect();
            writer.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
        }
        Cells::Number(cells) => {
            let (values, levels) = split(cells);
            writer.typed::<DoubleType>().write_batch(&values, Some(&levels), None)?;
        }
        Cells::Flag(cells) => {
            let (values, levels) = split(cells);
            writer.typed::<BoolType>().write_batch(&values, Some(&levels), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;

    #[test]
    fn what_is_written_is_read_back() {
        let columns = [
            ("step".to_string(), Cells::Text(vec![Some("a, \"b\"".into()), None, Some("ü".into())])),
            ("value".to_string(), Cells::Number(vec![Some(0.1), Some(f64::NAN), None])),
            ("share".to_string(), Cells::Flag(vec![Some(true), None, Some(false)])),
        ];
        let bytes = parquet(&columns).unwrap();
        assert_eq!((&bytes[..4], &bytes[bytes.len() - 4..]), (b"PAR1".as_slice(), b"PAR1".as_slice()));
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!((rows[0].get_string(0).unwrap().as_str(), rows[0].get_double(1).unwrap()), ("a, \"b\"", 0.1));
        assert!(
            rows[0].get_bool(2).unwrap() && rows[1].get_string(0).is_err() && rows[1].get_double(1).unwrap().is_nan()
        );
        assert!(rows[2].get_double(1).is_err() && rows[1].get_bool(2).is_err() && !rows[2].get_bool(2).unwrap());
    }

    #[test]
    fn no_row_is_a_table_too() {
        assert!(parquet(&[("a".to_string(), Cells::Text(Vec::new()))]).is_ok());
    }
}
