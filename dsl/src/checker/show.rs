//! What the summary shows: tables, with published figures beside them, and figures.

use super::Checker;
use super::measure::Measured;
use super::value::ValueKind;
use crate::diagnostic::Diagnostic;
use crate::program::{Cell, CellRef, Column, Drawing, Figure, Published, PublishedRow, Row, Table};
use crate::source::Span;
use crate::suggest::{did_you_mean, nearest_or_all};
use crate::syntax::{Expr, ExprKind, TableSyntax};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a file of published figures: far more than any table holds.
const LARGEST_REFERENCE: usize = 1 << 20;

/// The cells of the member at the same place but for one axis, where it is the baseline; none for the baseline itself.
fn base(groups: &BTreeMap<(usize, String), Vec<CellRef>>, place: &str, label: &str) -> Option<Vec<CellRef>> {
    let parts: Vec<&str> = place.split(", ").collect();
    if parts.contains(&label) {
        return None;
    }
    (0..parts.len()).find_map(|at| {
        let mut other = parts.clone();
        other[at] = label;
        let other = other.join(", ");
        groups.iter().find(|((_, place), _)| *place == other).map(|(_, cells)| cells.clone())
    })
}

impl Checker<'_> {
    /// Checks a table.
    pub(super) fn table(&mut self, table: &TableSyntax, order: &[usize]) -> Option<Table> {
        let mut rows_axis = None;
        let mut columns_expr = None;
        let mut against = None;
        for field in &table.fields {
            let [name] = field.path.as_slice() else {
                self.report(
                    Diagnostic::error(
                        "E0119",
                        field.value.span,
                        "a table has the fields `rows`, `columns` and `against`",
                    )
                    .label("no field of a table"),
                );
                continue;
            };
            match (name.text.as_str(), &field.value.kind) {
                ("rows", ExprKind::Name(axis)) => rows_axis = Some((axis.clone(), field.value.span)),
                ("rows", ExprKind::Wrong) => return None,
                ("rows", _) => {
                    self.report(
                        Diagnostic::error("E0119", field.value.span, "`rows` is the name of an axis")
                            .label("no axis")
                            .help("the word after `for`"),
                    );
                    return None;
                }
                ("columns", ExprKind::List(items)) => columns_expr = Some(items.clone()),
                ("columns", ExprKind::Wrong) => return None,
                ("columns", _) => columns_expr = Some(vec![field.value.clone()]),
                ("against", ExprKind::Wrong) => return None,
                ("against", _) => match self.evaluate(&field.value, 0, &[]).kind {
                    ValueKind::None => against = None,
                    ValueKind::Text(path) => against = Some((path, field.value.span)),
                    ValueKind::Wrong => return None,
                    _ => {
                        self.report(
                            Diagnostic::error("E0119", field.value.span, "`against` is a CSV file in quotes")
                                .label("no file")
                                .help("`against = \"reference/transfer.csv\"`"),
                        );
                        return None;
                    }
                },
                (other, _) => {
                    let help = did_you_mean(other, ["rows", "columns", "against"]);
                    self.report(
                        Diagnostic::error("E0119", name.span, format!("a table has no field `{other}`"))
                            .label("unknown field")
                            .help_if(help),
                    );
                }
            }
        }
        let (Some((axis, axis_span)), Some(items)) = (rows_axis, columns_expr) else {
            self.report(
                Diagnostic::error("E0119", table.name.span, "a table needs `rows` and `columns`")
                    .label("something is missing")
                    .help("`rows = method` and `columns = [nn.top1, voc.miou]`"),
            );
            return None;
        };
        let axes: Vec<String> = self.scopes.iter().filter_map(|scope| scope.axis.clone()).collect();
        if !axes.contains(&axis) {
            let known: Vec<&str> = axes.iter().map(String::as_str).collect();
            self.report(
                Diagnostic::error("E0119", axis_span, format!("there is no axis `{axis}`"))
                    .label("unknown axis")
                    .help_if(nearest_or_all(&axis, &known)),
            );
            return None;
        }
        let mut columns = Vec::new();
        for item in &items {
            let measured = self.measured(item, 0, &[], true);
            let Some(measured) = measured else { continue };
            columns.push((measured, item.span));
        }
        if columns.len() < items.len() || columns.is_empty() {
            if items.is_empty() {
                self.report(
                    Diagnostic::error("E0119", table.name.span, "a table needs at least one column")
                        .label("no columns"),
                );
            }
            return None;
        }
        // Rows in order of first appearance over all columns.
        let mut labels: Vec<String> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for (measured, _) in &columns {
            for member in &self.families[measured.reference.family].members {
                for b in self.members[*member].bindings.iter() {
                    if b.axis == axis && known.insert(b.label.clone()) {
                        labels.push(b.label.clone());
                    }
                }
            }
        }
        if labels.is_empty() {
            self.report(
                Diagnostic::error("E0119", axis_span, format!("no column varies along `{axis}`"))
                    .label("nothing would be in the rows"),
            );
            return None;
        }
        let mut rows = Vec::new();
        for label in &labels {
            let mut cells = Vec::new();
            for (measured, span) in &columns {
                let values = self.cells(measured, &[], order, *span, Some((&axis, label)))?;
                let floor = match &measured.metric.floor {
                    Some(floor) => {
                        values.iter().map(|cell| CellRef { metric: floor.clone(), ..cell.clone() }).collect()
                    }
                    None => Vec::new(),
                };
                cells.push(Cell { values, floor });
            }
            rows.push(Row { label: label.clone(), cells });
        }
        let columns: Vec<Column> = columns.into_iter().map(|(measured, span)| self.column(measured, span)).collect();
        let published = match against {
            Some((path, span)) => Some(self.against(&path, span, &axis, &labels, &columns)?),
            None => None,
        };
        let title = table.title.clone().unwrap_or_else(|| table.name.text.clone());
        Some(Table { name: table.name.text.clone(), title, row_axis: axis, rows, columns, published })
    }

    fn column(&self, measured: Measured, span: Span) -> Column {
        Column {
            label: self.written(span),
            family: self.family_name(measured.reference.family),
            kind: self.families[measured.reference.family].syntax.kind.text.clone(),
            metric: measured.metric,
            pick: measured.pick,
        }
    }

    /// Reads published figures: a CSV file whose first line names the axis and columns of the table (as written
    /// there, such as `svm.map`), and whose other lines give a row each. A column called `source` says where a row
    /// was published. Cells may be empty.
    fn against(
        &mut self,
        path: &str,
        span: Span,
        axis: &str,
        labels: &[String],
        columns: &[Column],
    ) -> Option<Published> {
        let wrong = |message: String| {
            Diagnostic::error("E0123", span, message).label("published figures to stand beside the table")
        };
        let from = self.sources.get(span.source).map(|source| source.name.clone());
        let loaded = match self.loader.load(from.as_deref(), path) {
            Ok(loaded) => loaded,
            Err(why) => {
                self.report(wrong(format!("\"{path}\" cannot be read: {why}")));
                return None;
            }
        };
        if loaded.text.len() > LARGEST_REFERENCE {
            self.report(wrong(format!("\"{path}\" is larger than 1 MiB, which no table of figures is")));
            return None;
        }
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .trim(csv::Trim::All)
            .has_headers(true)
            .from_reader(loaded.text.as_bytes());
        let headers: Vec<String> = match reader.headers() {
            Ok(headers) => headers.iter().map(str::to_owned).collect(),
            Err(error) => {
                self.report(wrong(format!("\"{path}\": {error}")));
                return None;
            }
        };
        let Some(row_at) = headers.iter().position(|name| name == axis) else {
            let known: Vec<&str> = headers.iter().map(String::as_str).collect();
            let help = crate::suggest::list(&known).map(|all| format!("its first line names {all}"));
            self.report(wrong(format!("\"{path}\" has no column `{axis}` for the rows")).help_if(help));
            return None;
        };
        let places: Vec<Option<usize>> =
            columns.iter().map(|column| headers.iter().position(|name| *name == column.label)).collect();
        if places.iter().all(Option::is_none) {
            let wanted: Vec<&str> = columns.iter().map(|column| column.label.as_str()).collect();
            let help = crate::suggest::list(&wanted).map(|all| format!("the table has {all}"));
            self.report(wrong(format!("\"{path}\" has none of the table's columns")).help_if(help));
            return None;
        }
        let source_at = headers.iter().position(|name| name == "source");
        let mut rows: Vec<PublishedRow> = Vec::new();
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    self.report(wrong(format!("\"{path}\": {error}")));
                    return None;
                }
            };
            let line = record.position().map_or(0, csv::Position::line);
            let label = record.get(row_at).unwrap_or_default().to_owned();
            let mut values = Vec::new();
            for (place, column) in places.iter().zip(columns) {
                let text = place.and_then(|place| record.get(place)).unwrap_or_default();
                let value = match text {
                    "" => None,
                    text => match text.parse::<f64>() {
                        Ok(value) if value.is_finite() => Some(value),
                        _ => {
                            let column = &column.label;
                            self.report(wrong(format!(
                                "\"{path}\", line {line}: `{text}` under `{column}` is no number"
                            )));
                            return None;
                        }
                    },
                };
                values.push(value);
            }
            if rows.iter().any(|row| row.label == label) {
                self.report(wrong(format!("\"{path}\", line {line}: `{label}` is there twice")));
                return None;
            }
            let source = source_at.and_then(|at| record.get(at)).unwrap_or_default().to_owned();
            rows.push(PublishedRow { label, values, source });
        }
        if !rows.iter().any(|row| labels.contains(&row.label)) {
            let known: Vec<&str> = labels.iter().map(String::as_str).collect();
            let help = crate::suggest::list(&known).map(|all| format!("the table has {all}"));
            let warning = Diagnostic::warning("W0203", span, format!("no row of \"{path}\" is one of the table's"))
                .label("all of them will stand apart")
                .help_if(help);
            self.report(warning);
        }
        Some(Published { file: path.to_owned(), rows })
    }

    /// Checks a figure. Curves are drawn over what they count; numbers as bars, one for each member; numbers over
    /// numbers as points.
    pub(super) fn figure(&mut self, figure: &TableSyntax, order: &[usize]) -> Option<Figure> {
        let (mut x, mut ys, mut baseline) = (None, None, None);
        for field in &figure.fields {
            let name = match field.path.as_slice() {
                [name] => name,
                path => {
                    let at = path.first().map_or(figure.name.span, |name| name.span);
                    self.report(
                        Diagnostic::error("E0124", at, "a figure has the fields `x`, `y` and `baseline`")
                            .label("no field of it"),
                    );
                    continue;
                }
            };
            match (name.text.as_str(), &field.value.kind) {
                (_, ExprKind::Wrong) => return None,
                ("x", _) => x = Some(field.value.clone()),
                ("baseline", _) => baseline = Some((self.written(field.value.span), field.value.span)),
                ("y", ExprKind::List(items)) => ys = Some(items.clone()),
                ("y", _) => ys = Some(vec![field.value.clone()]),
                (other, _) => {
                    let help = did_you_mean(other, ["x", "y", "baseline"]);
                    self.report(
                        Diagnostic::error("E0124", name.span, format!("a figure has no field `{other}`"))
                            .label("unknown field")
                            .help_if(help),
                    );
                }
            }
        }
        let Some(items) = ys.filter(|items| !items.is_empty()) else {
            self.report(
                Diagnostic::error("E0124", figure.name.span, "a figure needs `y`")
                    .label("nothing to draw")
                    .help("`y = [moco.knn_top1]` draws a curve, `y = [nn.top1]` bars"),
            );
            return None;
        };
        let mut measured = Vec::new();
        for item in &items {
            let found = self.measured(item, 0, &[], false);
            measured.push((found?, item.span));
        }
        let curves: Vec<bool> = measured.iter().map(|(found, _): &(Measured, Span)| found.whole).collect();
        if let Some(at) = curves.iter().position(|is| *is != curves[0]) {
            self.report(
                Diagnostic::error("E0124", measured[at].1, "a figure draws curves or numbers, not both")
                    .label(if curves[at] { "a curve" } else { "a number" })
                    .related(measured[0].1, if curves[0] { "a curve" } else { "a number" })
                    .help("`.last` makes a number of a curve"),
            );
            return None;
        }
        if let Some((_, span)) = &baseline
            && (curves[0] || x.is_some())
        {
            self.report(
                Diagnostic::error("E0124", *span, "a baseline is taken from numbers that are drawn alone")
                    .label(if curves[0] { "not from curves" } else { "not together with `x`" }),
            );
            return None;
        }
        let against = match x {
            // The place of a curve's points: its own x, whatever it counts.
            Some(expr) if curves[0] => {
                self.counted(&expr)?;
                None
            }
            Some(expr) => {
                let found = self.measured(&expr, 0, &[], true)?;
                Some((found, expr.span))
            }
            None => None,
        };
        let mut columns = Vec::new();
        let mut drawings = Vec::new();
        for (at, (found, span)) in measured.into_iter().enumerate() {
            let over = match &against {
                Some((over, span)) => self.members_by_place(over, order, *span)?,
                None => BTreeMap::new(),
            };
            let groups = self.members_by_place(&found, order, span)?;
            if let Some((label, at)) = &baseline
                && !groups.keys().any(|(_, place)| place.split(", ").any(|part| part == label))
            {
                let parts: BTreeSet<&str> = groups.keys().flat_map(|(_, place)| place.split(", ")).collect();
                let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                let measured = self.written(span);
                self.report(
                    Diagnostic::error("E0124", *at, format!("`{measured}` has no member `{label}`"))
                        .label("nothing to take from the others")
                        .help_if(nearest_or_all(label, &parts)),
                );
                return None;
            }
            for (place, cells) in &groups {
                let (place, cells) = (place.clone(), cells.clone());
                let x = match &against {
                    None => match &baseline {
                        None => Vec::new(),
                        Some((label, _)) => match base(&groups, &place.1, label) {
                            Some(cells) => cells,
                            // The baseline itself, or a member that has none.
                            None => continue,
                        },
                    },
                    Some(_) => match over.get(&place) {
                        Some(cells) => cells.clone(),
                        // A member that the other family lacks has no place in the figure.
                        None => continue,
                    },
                };
                let label = if place.1.is_empty() { self.written(span) } else { place.1.clone() };
                drawings.push(Drawing { column: at, label, cells, x });
            }
            columns.push(self.column(found, span));
        }
        if drawings.is_empty() {
            self.report(
                Diagnostic::error("E0124", figure.name.span, "`x` and `y` have no members in common")
                    .label("nothing to draw"),
            );
            return None;
        }
        let title = figure.title.clone().unwrap_or_else(|| figure.name.text.clone());
        let over = against.map(|(found, span)| self.column(found, span));
        let baseline = baseline.map(|(label, _)| label);
        Some(Figure { name: figure.name.text.clone(), title, curves: curves[0], over, baseline, columns, drawings })
    }

    /// `x` of curves: `family.epoch`, which says what is counted, or the word alone.
    fn counted(&mut self, expr: &Expr) -> Option<()> {
        use crate::syntax::Postfix;
        let fine = match &expr.kind {
            ExprKind::Name(_) => true,
            ExprKind::Postfix(base, parts) => {
                matches!(&base.kind, ExprKind::Name(name) if self.names.contains_key(name))
                    && matches!(parts.last(), Some(Postfix::Member(_)))
            }
            _ => false,
        };
        if !fine {
            self.report(
                Diagnostic::error("E0124", expr.span, "curves are drawn over what they count")
                    .label("expected such as `moco.epoch` or `epoch`, or no `x` at all"),
            );
        }
        fine.then_some(())
    }

    /// The members of a family by their place on the axes to compare along (in order, and as words), each with one
    /// cell for each replicate.
    fn members_by_place(
        &mut self,
        measured: &Measured,
        order: &[usize],
        span: Span,
    ) -> Option<BTreeMap<(usize, String), Vec<CellRef>>> {
        // What is chosen stands in one place.
        if measured.reference.best.is_some() {
            let cells = self.cells(measured, &[], order, span, None)?;
            return Some(BTreeMap::from([((0, String::new()), cells)]));
        }
        let members = self.select(&measured.reference, &[], span)?;
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut groups: BTreeMap<(usize, String), Vec<CellRef>> = BTreeMap::new();
        for member in members {
            let bindings = &self.members[member].bindings;
            let place: Vec<&str> = bindings.iter().filter(|b| !b.replicate).map(|b| b.label.as_str()).collect();
            let replicates: Vec<String> =
                bindings.iter().filter(|b| b.replicate).map(|b| format!("{}={}", b.axis, b.label)).collect();
            let place = place.join(", ");
            let count = numbers.len();
            let number = *numbers.entry(place.clone()).or_insert(count);
            groups.entry((number, place)).or_default().push(CellRef {
                step: order.get(member).copied().unwrap_or(member),
                metric: measured.metric.name.clone(),
                replicate: (!replicates.is_empty()).then(|| replicates.join(", ")),
            });
        }
        for cells in groups.values() {
            self.shown(measured, cells, order, span);
        }
        Some(groups)
    }
}
