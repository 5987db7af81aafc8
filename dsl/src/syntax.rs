//! What a text says, before anything is known about its names.
//!
//! Chains of operators and of postfixes are flat lists, so that the depth of the tree is the depth of the brackets
//! in the text, which the parser limits.

use crate::source::Span;

/// A name and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// The name.
    pub text: String,
    /// Where it is.
    pub span: Span,
}

/// A declaration.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `import "file.exp"`
    Import {
        /// As written between the quotes.
        path: String,
        /// Where that is.
        span: Span,
    },
    /// `param name = value`
    Param(Definition),
    /// `let name = value`
    Let(Definition),
    /// `KIND name from base { fields }`
    Step(StepSyntax),
    /// `for axis in list { … }` or `replicate axis in list { … }`
    Block(BlockSyntax),
    /// `table name "Title" { fields }`
    Table(TableSyntax),
    /// `figure name "Title" { fields }`
    Figure(TableSyntax),
    /// `claim "text" { condition }`
    Claim(ClaimSyntax),
}

/// A name for a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The name.
    pub name: Name,
    /// The value.
    pub value: Expr,
}

/// A step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSyntax {
    /// The word for its kind.
    pub kind: Name,
    /// Its own name.
    pub name: Name,
    /// The step whose fields it starts from.
    pub base: Option<Name>,
    /// Which of that step's members, where only some are meant.
    pub index: Vec<IndexSyntax>,
    /// What is written between its braces.
    pub fields: Vec<FieldSyntax>,
    /// All of it, from the kind to the closing brace.
    pub whole: Span,
}

/// An axis and what lies along it.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSyntax {
    /// Whether it is an axis to average over.
    pub replicate: bool,
    /// The axis.
    pub axis: Name,
    /// Names for what goes along with each value: `for method, rate in zip(methods, rates)`.
    pub along: Vec<Name>,
    /// Its values.
    pub list: Expr,
    /// Which of them count, if not all.
    pub when: Option<Expr>,
    /// What lies along it.
    pub items: Vec<Item>,
}

/// A table or a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSyntax {
    /// Its name.
    pub name: Name,
    /// Its title.
    pub title: Option<String>,
    /// What is written between its braces.
    pub fields: Vec<FieldSyntax>,
}

/// A claim.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimSyntax {
    /// What is claimed, in words.
    pub text: String,
    /// Where that is.
    pub span: Span,
    /// What is claimed, as a condition.
    pub condition: Expr,
}

/// `name = value` or `a.b = value`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldSyntax {
    /// The names before `=`; at least one.
    pub path: Vec<Name>,
    /// The value.
    pub value: Expr,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it says.
    pub kind: ExprKind,
    /// Where it is.
    pub span: Span,
}

/// What an expression says.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// A whole number.
    Int(i64),
    /// Any other number, or a percentage as a fraction.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `none`.
    None,
    /// A text.
    Text(String),
    /// A length of time in seconds.
    Duration(f64),
    /// A size in bytes.
    Size(i64),
    /// A place in a dataset root.
    Path {
        /// The root's name.
        root: String,
        /// The place in it.
        path: String,
    },
    /// A name.
    Name(String),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `{ a = 1 }`
    Record(Vec<FieldSyntax>),
    /// `sgd { lr = 0.3 }`
    Tagged {
        /// The word before the braces.
        tag: Name,
        /// What is between them.
        fields: Vec<FieldSyntax>,
    },
    /// `a..b`
    Range(Box<Expr>, Box<Expr>),
    /// `a + b - c`: operators of one precedence, from left to right.
    Chain(Box<Expr>, Vec<(Operator, Expr)>),
    /// `-a`
    Negate(Box<Expr>),
    /// `not a`
    Not(Box<Expr>),
    /// `if a then b else c`
    If(Box<(Expr, Expr, Expr)>),
    /// `f(a, b)`
    Call {
        /// The function.
        function: Name,
        /// What it is applied to.
        arguments: Vec<Expr>,
    },
    /// `best(family, by = metric)`
    Best(Box<BestSyntax>),
    /// `a.b[c].d(e)`
    Postfix(Box<Expr>, Vec<Postfix>),
    /// What could not be read and has been reported.
    Wrong,
}

/// Whichever member of a family has the best number.
#[derive(Debug, Clone, PartialEq)]
pub struct BestSyntax {
    /// The family to choose from.
    pub family: Expr,
    /// The number to choose by.
    pub by: Expr,
}

/// What may follow a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Postfix {
    /// `.name`
    Member(Name),
    /// `[value, axis = value]`
    Index(Vec<IndexSyntax>, Span),
    /// `(a, b)` behind a member
    Call(Vec<Expr>, Span),
}

/// One place on one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSyntax {
    /// The axis, if it is named.
    pub axis: Option<Name>,
    /// The value on it.
    pub value: Expr,
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `and`
    And,
    /// `or`
    Or,
}

impl Operator {
    /// As written.
    pub fn text(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::And => "and",
            Operator::Or => "or",
        }
    }
}

/// The same syntax with every place forgotten: two texts that say the same have equal shapes.
pub fn shape(items: &[Item]) -> Vec<Item> {
    let mut items = items.to_vec();
    items.iter_mut().for_each(forget_item);
    items
}

fn forget_name(name: &mut Name) {
    name.span = Span::default();
}

fn forget_fields(fields: &mut [FieldSyntax]) {
    for field in fields {
        field.path.iter_mut().for_each(forget_name);
        forget(&mut field.value);
    }
}

fn forget_item(item: &mut Item) {
    match item {
        Item::Import { span, .. } => *span = Span::default(),
        Item::Param(definition) | Item::Let(definition) => {
            forget_name(&mut definition.name);
            forget(&mut definition.value);
        }
        Item::Step(step) => {
            forget_name(&mut step.kind);
            forget_name(&mut step.name);
            step.base.iter_mut().for_each(forget_name);
            step.index.iter_mut().for_each(forget_index);
            forget_fields(&mut step.fields);
            step.whole = Span::default();
        }
        Item::Block(block) => {
            forget_name(&mut block.axis);
            block.along.iter_mut().for_each(forget_name);
            forget(&mut block.list);
            block.when.iter_mut().for_each(forget);
            block.items.iter_mut().for_each(forget_item);
        }
        Item::Table(table) | Item::Figure(table) => {
            forget_name(&mut table.name);
            forget_fields(&mut table.fields);
        }
        Item::Claim(claim) => {
            claim.span = Span::default();
            forget(&mut claim.condition);
        }
    }
}

fn forget_index(item: &mut IndexSyntax) {
    item.axis.iter_mut().for_each(forget_name);
    forget(&mut item.value);
}

fn forget(expr: &mut Expr) {
    expr.span = Span::default();
    match &mut expr.kind {
        ExprKind::List(items) => items.iter_mut().for_each(forget),
        ExprKind::Record(fields) => forget_fields(fields),
        ExprKind::Tagged { tag, fields } => {
            forget_name(tag);
            forget_fields(fields);
        }
        ExprKind::Range(low, high) => [low, high].into_iter().for_each(|end| forget(end)),
        ExprKind::Chain(first, rest) => {
            forget(first);
            rest.iter_mut().for_each(|(_, operand)| forget(operand));
        }
        ExprKind::Negate(inner) | ExprKind::Not(inner) => forget(inner),
        ExprKind::If(parts) => {
            let (condition, then, other) = parts.as_mut();
            [condition, then, other].into_iter().for_each(forget);
        }
        ExprKind::Call { function, arguments } => {
            forget_name(function);
            arguments.iter_mut().for_each(forget);
        }
        ExprKind::Best(best) => {
            forget(&mut best.family);
            forget(&mut best.by);
        }
        ExprKind::Postfix(base, parts) => {
            forget(base);
            for part in parts {
                match part {
                    Postfix::Member(name) => forget_name(name),
                    Postfix::Index(items, span) => {
                        *span = Span::default();
                        items.iter_mut().for_each(forget_index);
                    }
                    Postfix::Call(arguments, span) => {
                        *span = Span::default();
                        arguments.iter_mut().for_each(forget);
                    }
                }
            }
        }
        _ => {}
    }
}
