//! Values: what expressions are worth before a field says what it wants.

use crate::catalog::Metric;
use crate::program::Pick;
use crate::source::Span;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// What it is.
    pub kind: ValueKind,
    /// Where it was written.
    pub span: Span,
}

/// Fields of a record in the order written.
pub type Record = Vec<(String, Value)>;

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    /// `none`
    None,
    /// `true`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A bare word that no name stands for: a choice or a tag, if the field has it.
    Word(String),
    /// Seconds.
    Duration(f64),
    /// Bytes.
    Size(i64),
    /// `@root/path`
    Path(String, String),
    /// `a..b`
    Range(f64, f64, bool),
    /// `[a, b]`
    List(Vec<Value>),
    /// `{ a = 1 }`
    Record(Record),
    /// `tag { a = 1 }`
    Tagged(String, Record),
    /// A step's family, or a part of it.
    Family(FamilyRef),
    /// What was reported already.
    Wrong,
}

/// A family, perhaps indexed, perhaps with an output.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyRef {
    /// Index of the family.
    pub family: usize,
    /// The family's name.
    pub name: String,
    /// Places on axes.
    pub index: Vec<Place>,
    /// The output, if written.
    pub output: Option<(String, Span)>,
    /// How one of its members is chosen, if one is.
    pub best: Option<Box<ChoiceRef>>,
}

/// A place on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The axis and where it is named, if it is.
    pub axis: Option<(String, Span)>,
    /// The value's label.
    pub label: String,
    /// Where the value is.
    pub span: Span,
}

impl Place {
    /// Whether the axis of this name is named.
    pub fn names(&self, axis: &str) -> bool {
        self.axis.as_ref().is_some_and(|(name, _)| name == axis)
    }
}

/// The number by which a member is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceRef {
    /// The family that measures it.
    pub by: FamilyRef,
    /// What it measures.
    pub metric: Metric,
    /// Which number of a series.
    pub pick: Pick,
    /// Where `best(…)` is.
    pub span: Span,
    /// Where the number is.
    pub by_span: Span,
}

impl FamilyRef {
    /// The family as a whole.
    pub fn whole(family: usize, name: impl Into<String>) -> FamilyRef {
        FamilyRef { family, name: name.into(), index: Vec::new(), output: None, best: None }
    }
}

impl Value {
    /// The bare word that it is where a tag or a choice is wanted: the name of a step is one as well, since tags
    /// have a name space of their own.
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            ValueKind::Word(word) => Some(word),
            ValueKind::Family(FamilyRef { name, index, output: None, best: None, .. }) if index.is_empty() => {
                Some(name)
            }
            _ => None,
        }
    }

    /// For `expected …, found …`.
    pub fn found(&self) -> String {
        match &self.kind {
            ValueKind::None => "`none`".into(),
            ValueKind::Bool(value) => format!("`{value}`"),
            ValueKind::Int(value) => format!("the integer {value}"),
            ValueKind::Float(value) => format!("the number {value}"),
            ValueKind::Text(text) => format!("the text \"{text}\""),
            ValueKind::Word(word) => format!("the word `{word}`"),
            ValueKind::Duration(_) => "a duration".into(),
            ValueKind::Size(_) => "a size".into(),
            ValueKind::Path(root, path) => format!("the path @{root}/{path}"),
            ValueKind::Range(..) => "a range".into(),
            ValueKind::List(_) => "a list".into(),
            ValueKind::Record(_) => "a record".into(),
            ValueKind::Tagged(tag, _) => format!("`{tag} {{ … }}`"),
            ValueKind::Family(_) => "a step".into(),
            ValueKind::Wrong => "something wrong".into(),
        }
    }

    /// As a label on an axis; none for what cannot be one.
    pub fn label(&self, family: impl Fn(usize) -> String) -> Option<String> {
        Some(match &self.kind {
            ValueKind::Bool(value) => value.to_string(),
            ValueKind::Int(value) => value.to_string(),
            ValueKind::Float(value) => value.to_string(),
            ValueKind::Text(text) | ValueKind::Word(text) => text.clone(),
            ValueKind::Family(reference) if reference.best.is_some() => format!("best({})", family(reference.family)),
            ValueKind::Family(reference) => match &reference.output {
                Some((epoch, _)) if epoch.starts_with('@') => format!("{}{epoch}", family(reference.family)),
                _ => family(reference.family),
            },
            _ => return None,
        })
    }

    /// How many values it is made of, itself among them.
    pub fn weight(&self) -> usize {
        1 + match &self.kind {
            ValueKind::List(items) => items.iter().map(Value::weight).sum(),
            ValueKind::Record(record) | ValueKind::Tagged(_, record) => {
                record.iter().map(|(_, value)| value.weight()).sum()
            }
            _ => 0,
        }
    }

    /// How many levels it has.
    pub fn depth(&self) -> usize {
        1 + match &self.kind {
            ValueKind::List(items) => items.iter().map(Value::depth).max().unwrap_or(0),
            ValueKind::Record(record) | ValueKind::Tagged(_, record) => {
                record.iter().map(|(_, value)| value.depth()).max().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Both as numbers, when they are of one sort: numbers, durations or sizes.
    pub fn comparable(&self, other: &Value) -> Option<(f64, f64)> {
        match (&self.kind, &other.kind) {
            (ValueKind::Duration(a), ValueKind::Duration(b)) => Some((*a, *b)),
            (ValueKind::Size(a), ValueKind::Size(b)) => Some((*a as f64, *b as f64)),
            _ => self.number().zip(other.number()),
        }
    }

    /// As a number.
    pub fn number(&self) -> Option<f64> {
        match self.kind {
            ValueKind::Int(value) => Some(value as f64),
            ValueKind::Float(value) => Some(value),
            _ => None,
        }
    }
}

/// Lays `over` on `under`: fields replace, records and records with the same tag merge.
pub fn merge(under: &mut Value, over: Value) {
    // A bare tag is the tag with nothing between its braces.
    if let ValueKind::Tagged(tag, _) = &under.kind
        && over.word() == Some(tag)
    {
        return;
    }
    match (&mut under.kind, over.kind) {
        (ValueKind::Record(fields), ValueKind::Record(news)) => merge_record(fields, news),
        (ValueKind::Tagged(tag, fields), ValueKind::Tagged(new, news)) if *tag == new => merge_record(fields, news),
        (kind, new) => {
            *kind = new;
            under.span = over.span;
        }
    }
}

/// Field by field.
pub fn merge_record(fields: &mut Record, news: Record) {
    for (name, value) in news {
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => merge(old, value),
            None => fields.push((name, value)),
        }
    }
}

/// Sets `a.b.c` inside a record, reaching through tags.
pub fn set(fields: &mut Record, path: &[String], value: Value) {
    let [name, rest @ ..] = path else { return };
    if !fields.iter().any(|(known, _)| known == name) {
        fields.push((name.clone(), Value { kind: ValueKind::Record(Vec::new()), span: value.span }));
    }
    let Some((_, slot)) = fields.iter_mut().find(|(known, _)| known == name) else { return };
    if rest.is_empty() {
        // A field just made holds an empty record, which anything replaces.
        if slot.kind == ValueKind::Record(Vec::new()) {
            *slot = value
        } else {
            merge(slot, value)
        }
        return;
    }
    if let Some(tag) = slot.word() {
        slot.kind = ValueKind::Tagged(tag.to_owned(), Vec::new());
    }
    match &mut slot.kind {
        ValueKind::Record(inner) | ValueKind::Tagged(_, inner) => set(inner, rest, value),
        _ => {
            let mut inner = Vec::new();
            set(&mut inner, rest, value.clone());
            *slot = Value { kind: ValueKind::Record(inner), span: value.span };
        }
    }
}
