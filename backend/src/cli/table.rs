//! Tables: columns aligned by their widest cell, two spaces apart, numbers to the right.

use crate::out::{Paint, Tone};

const GAP: &str = "  ";

/// A column's heading and alignment.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    Left(&'static str),
    Right(&'static str),
}

/// A cell's text and tone.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Cell {
    pub fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }

    /// The value, or a dash if there is none.
    pub fn maybe(value: Option<impl ToString>) -> Cell {
        match value {
            Some(value) => Cell::from(value.to_string()),
            None => Cell::toned("-", Tone::Faint),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), tone: Tone::Plain }
    }
}

impl Table {
    pub fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has a cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.to_vec());
    }

    pub fn render(&self, paint: Paint) -> String {
        let headings =
            self.columns.iter().map(|column| Cell::toned(column.heading(), Tone::Strong)).collect::<Vec<_>>();
        let mut lines = vec![headings];
        lines.extend(self.rows.iter().cloned());
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|n| lines.iter().map(|cells| cells[n].text.chars().count()).max().unwrap_or(0))
            .collect();
        lines.iter().map(|cells| self.line(cells, &widths, paint)).collect()
    }

    fn line(&self, cells: &[Cell], widths: &[usize], paint: Paint) -> String {
        let mut line = String::new();
        // Padding is written only before further text, so that no line ends with blanks.
        let mut pending = String::new();
        for ((cell, column), width) in cells.iter().zip(&self.columns).zip(widths) {
            let padding = " ".repeat(width - cell.text.chars().count());
            let right = matches!(column, Column::Right(_));
            if right {
                pending.push_str(&padding);
            }
            if !cell.text.is_empty() {
                line.push_str(&std::mem::take(&mut pending));
                line.push_str(&paint.apply(cell.tone, &cell.text));
            }
            if !right {
                pending.push_str(&padding);
            }
            pending.push_str(GAP);
        }
        line.push('\n');
        line
    }
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_line_ends_with_blanks() {
        let mut table = Table::new(&[Column::Right("ID"), Column::Left("NAME"), Column::Left("WHY")]);
        table.row(["1".into(), "amber-fox".into(), "".into()]);
        table.row(["12".into(), Cell::toned("owl", Tone::Good), "it answers".into()]);
        table.row([Cell::maybe(None::<u64>), "x".into(), "y".into()]);
        let expected = "\
ID  NAME       WHY
 1  amber-fox
12  owl        it answers
 -  x          y
";
        assert_eq!(table.render(Paint::NONE), expected);
    }
}
