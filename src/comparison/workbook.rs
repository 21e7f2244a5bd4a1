//! The result as an Excel workbook: a sheet for each table, and charts of what matters.

use std::path::Path;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use rust_xlsxwriter::{Chart, ChartType, Color, Format, FormatAlign, Workbook, Worksheet, XlsxError};

use super::analysis::Moment;
use super::result::ComparisonResult;
use crate::error::{Error, ErrorKind, Result};

/// Units of a cell's text, in UTF-16 as Excel counts them; it takes a few more.
const LONGEST_TEXT: usize = 32_000;
/// Rows of a sheet, of which Excel takes a few more.
const MOST_ROWS: u32 = 1_000_000;

/// Writes `result` as a workbook to `path`, in place of what is there. Text is always written as text, never as a formula.
///
/// # Errors
/// [`ErrorKind::Storage`] when it cannot be written there.
pub fn write(result: &ComparisonResult, path: &Path) -> Result<()> {
    let mut workbook = make(result)?;
    workbook.save(path).map_err(|e| {
        let text =
            format!("the workbook cannot be written to {}: name a folder that can be written to", path.display());
        Error::new(ErrorKind::Storage, text).with_source(e)
    })
}

fn make(result: &ComparisonResult) -> Result<Workbook> {
    let mut workbook = Workbook::new();
    let styles = Styles::new();
    let broken =
        |e: XlsxError| Error::new(ErrorKind::Internal, "the result does not fit into a workbook").with_source(e);
    summary(workbook.add_worksheet(), result, &styles).map_err(broken)?;
    let warnings = result.warnings.iter().map(|warning| vec![Cell::Text(&warning.code), Cell::Text(&warning.text)]);
    sheet(workbook.add_worksheet(), "Warnings", &["code", "text"], warnings, &styles).map_err(broken)?;
    for (name, batch) in [
        ("Arms", result.arms()?),
        ("Phases", result.phases()?),
        ("Hosts", result.hosts()?),
        ("Jobs", result.jobs_batch()?),
    ] {
        table(workbook.add_worksheet(), name, &batch, &styles).map_err(broken)?;
    }
    concurrency(workbook.add_worksheet(), result, &styles).map_err(broken)?;
    Ok(workbook)
}

struct Styles {
    head: Format,
    number: Format,
    whole: Format,
    wrapped: Format,
    verdict: Format,
}

impl Styles {
    fn new() -> Self {
        let head = Format::new().set_bold().set_background_color(Color::RGB(0x00DD_E6F0)).set_align(FormatAlign::Top);
        Self {
            head: head.set_text_wrap(),
            number: Format::new().set_num_format("#,##0.###"),
            whole: Format::new().set_num_format("#,##0"),
            wrapped: Format::new().set_text_wrap().set_align(FormatAlign::Top),
            verdict: Format::new().set_bold().set_font_size(13).set_text_wrap().set_align(FormatAlign::Top),
        }
    }
}

/// What a cell holds.
enum Cell<'a> {
    Text(&'a str),
    Number(f64),
    None,
}

impl From<Option<f64>> for Cell<'_> {
    fn from(number: Option<f64>) -> Self {
        number.filter(|number| number.is_finite()).map_or(Self::None, Self::Number)
    }
}

/// As much of `text` as a cell takes.
fn short(text: &str) -> &str {
    let mut units = 0;
    let end = text.char_indices().find(|(_, c)| {
        units += c.len_utf16();
        units > LONGEST_TEXT
    });
    end.map_or(text, |(at, _)| &text[..at])
}

fn put(
    sheet: &mut Worksheet,
    row: u32,
    column: u16,
    cell: &Cell<'_>,
    styles: &Styles,
) -> std::result::Result<(), XlsxError> {
    match cell {
        // Never a formula, whatever it begins with.
        Cell::Text(text) => {
            sheet.write_string(row, column, short(text))?;
        }
        Cell::Number(number) => {
            let format = if number.fract() == 0.0 { &styles.whole } else { &styles.number };
            sheet.write_number_with_format(row, column, *number, format)?;
        }
        Cell::None => {}
    }
    Ok(())
}

fn heads(sheet: &mut Worksheet, row: u32, names: &[&str], styles: &Styles) -> std::result::Result<(), XlsxError> {
    for (column, name) in (0..).zip(names) {
        sheet.write_string_with_format(row, column, short(name), &styles.head)?;
    }
    Ok(())
}

fn summary(sheet: &mut Worksheet, result: &ComparisonResult, styles: &Styles) -> std::result::Result<(), XlsxError> {
    sheet.set_name("Summary")?;
    sheet.merge_range(0, 0, 0, 8, short(&result.analysis.verdict.text), &styles.verdict)?;
    sheet.set_row_height(0, 76)?;
    let names = ["treatment", "baseline", "what differs", "ratio", "low", "high", "rounds", "claimed", "percent saved"];
    heads(sheet, 2, &names, styles)?;
    for (row, gain) in (3..).zip(&result.analysis.comparisons) {
        let ratio = gain.ratio;
        let cells = [
            Cell::Text(&gain.treatment),
            Cell::Text(&gain.baseline),
            Cell::Text(match gain.kind {
                super::analysis::Kind::Parallelism => "parallelism",
                super::analysis::Kind::Context => "context",
                super::analysis::Kind::Total => "parallelism and context",
                super::analysis::Kind::Mixed => "parallelism and context, not told apart",
                super::analysis::Kind::Same => "nothing known",
            }),
            ratio.map(|ratio| ratio.ratio).into(),
            ratio.and_then(|ratio| ratio.low).into(),
            ratio.and_then(|ratio| ratio.high).into(),
            ratio.map(|ratio| ratio.rounds as f64).into(),
            Cell::Text(if ratio.is_some_and(|ratio| ratio.claimed) { "yes" } else { "no" }),
            gain.percent_saved.into(),
        ];
        for (column, cell) in (0..).zip(&cells) {
            put(sheet, row, column, cell, styles)?;
        }
    }
    for column in 0..3 {
        sheet.set_column_width(column, 24)?;
    }
    let first = 5 + result.analysis.comparisons.len() as u32;
    heads(sheet, first, &["arm", "makespan, s"], styles)?;
    let mut last = first;
    for (row, arm) in (first + 1..).zip(&result.analysis.arms) {
        put(sheet, row, 0, &Cell::Text(&arm.arm), styles)?;
        put(sheet, row, 1, &arm.makespan_s.map(|spread| spread.mean).into(), styles)?;
        last = row;
    }
    if last > first {
        let mut chart = Chart::new(ChartType::Bar);
        chart.add_series().set_categories(("Summary", first + 1, 0, last, 0)).set_values((
            "Summary",
            first + 1,
            1,
            last,
            1,
        ));
        chart.title().set_name("Makespan, seconds of the server");
        chart.legend().set_hidden();
        sheet.insert_chart(first, 3, &chart)?;
    }
    Ok(())
}

fn sheet<'a>(
    sheet: &mut Worksheet,
    name: &str,
    names: &[&str],
    rows: impl Iterator<Item = Vec<Cell<'a>>>,
    styles: &Styles,
) -> std::result::Result<(), XlsxError> {
    sheet.set_name(name)?;
    heads(sheet, 0, names, styles)?;
    let mut last = 0;
    for (row, cells) in (1..).zip(rows) {
        for (column, cell) in (0..).zip(&cells) {
            put(sheet, row, column, cell, styles)?;
        }
        last = row;
    }
    sheet.set_freeze_panes(1, 0)?;
    sheet.autofilter(0, 0, last.max(1), (names.len() as u16).saturating_sub(1))?;
    if name == "Warnings" {
        sheet.set_column_width(0, 26)?;
        sheet.set_column_width(1, 120)?;
        sheet.set_column_format(1, &styles.wrapped)?;
    } else {
        sheet.autofit();
    }
    Ok(())
}

fn table(
    worksheet: &mut Worksheet,
    name: &str,
    batch: &RecordBatch,
    styles: &Styles,
) -> std::result::Result<(), XlsxError> {
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let cell = |row: usize, column: usize| -> Cell<'_> {
        let values = batch.column(column);
        if values.is_null(row) {
            return Cell::None;
        }
        match values.data_type() {
            DataType::Utf8 => Cell::Text(values.as_string::<i32>().value(row)),
            DataType::Float64 => Some(values.as_primitive::<Float64Type>().value(row)).into(),
            DataType::Int64 => Cell::Number(values.as_primitive::<Int64Type>().value(row) as f64),
            DataType::Boolean => Cell::Text(if values.as_boolean().value(row) { "yes" } else { "no" }),
            _ => Cell::None,
        }
    };
    let rows = (0..batch.num_rows()).map(|row| (0..batch.num_columns()).map(|column| cell(row, column)).collect());
    sheet(worksheet, name, &names, rows, styles)
}

/// Jobs on hosts over time, of each arm in columns of its own, with a chart of the first round.
fn concurrency(
    sheet: &mut Worksheet,
    result: &ComparisonResult,
    styles: &Styles,
) -> std::result::Result<(), XlsxError> {
    const COLUMNS: u16 = 5;
    sheet.set_name("Concurrency")?;
    let mut chart = Chart::new(ChartType::ScatterStraight);
    let mut drawn = false;
    for (number, arm) in (0_u16..).zip(&result.analysis.arms) {
        let column = number * COLUMNS;
        heads_at(sheet, column, &["round", "second", &format!("{}: jobs on hosts", arm.arm), "hosts held"], styles)?;
        let Some(shown) = arm.concurrency.first().map(|moment| moment.round) else { continue };
        let (mut row, mut last, mut before) = (1, 0, None::<Moment>);
        let mut start = 0.0;
        for moment in &arm.concurrency {
            if row >= MOST_ROWS {
                break;
            }
            // Each round begins with no job at its own second 0.
            let earlier = before.filter(|before| before.round == moment.round);
            if earlier.is_none() {
                start = moment.at_s;
            }
            // Two points for each change, or the line would be slanted.
            let earlier = earlier.map_or((0, 0), |before| (before.jobs, before.hosts));
            for (jobs, hosts) in [earlier, (moment.jobs, moment.hosts)] {
                for (at, value) in (column..).zip([moment.round as f64, moment.at_s - start, jobs as f64, hosts as f64])
                {
                    put(sheet, row, at, &Cell::Number(value), styles)?;
                }
                if moment.round == shown {
                    last = row;
                }
                row += 1;
            }
            before = Some(*moment);
        }
        chart
            .add_series()
            // By a cell: a name that looked like a range would be taken for one.
            .set_name(("Concurrency", 0, column + 2))
            .set_categories(("Concurrency", 1, column + 1, last, column + 1))
            .set_values(("Concurrency", 1, column + 2, last, column + 2));
        drawn = true;
    }
    sheet.set_freeze_panes(1, 0)?;
    sheet.autofit();
    if drawn {
        chart.title().set_name("Jobs on hosts, first round");
        chart.x_axis().set_name("seconds since the arm's first start");
        chart.set_width(900).set_height(420);
        sheet.insert_chart(1, result.analysis.arms.len() as u16 * COLUMNS, &chart)?;
    }
    Ok(())
}

fn heads_at(sheet: &mut Worksheet, column: u16, names: &[&str], styles: &Styles) -> std::result::Result<(), XlsxError> {
    for (at, name) in (column..).zip(names) {
        sheet.write_string_with_format(0, at, short(name), &styles.head)?;
    }
    Ok(())
}
