//! From syntax to a checked program: names, families, fields, tables and claims.
//!
//! A step inside `for` and `replicate` blocks is a family with one member for each combination of the axes' values.
//! Families are declared first and their fields looked at afterwards, so the order of declarations does not matter.

mod axes;
mod choose;
mod claims;
mod declare;
mod evaluate;
mod fit;
mod measure;
mod show;
mod sound;
mod value;

pub(crate) use evaluate::FUNCTIONS;
pub(crate) use fit::wanted;
pub use sound::ALLOWS_OVERLAP;

use crate::catalog::{Catalog, Kind};
use crate::diagnostic::{Diagnostic, Severity};
use crate::program::{Axis, Program, Step};
use crate::source::{Sources, Span};
use crate::suggest::{did_you_mean, nearest_or_all};
use crate::syntax::{Definition, Expr, FieldSyntax, Item, StepSyntax};
use crate::{Checked, Loader, Overrides};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use value::{FamilyRef, Record, Value, ValueKind, merge_record, set};

/// Names looked up, values evaluated: beyond this a text is not a program any more.
const MOST_WORK: usize = 2_000_000;
/// Members of all families together.
const MOST_STEPS: usize = 100_000;
/// Definitions or bases one upon another.
const DEEPEST: usize = 100;
/// Expressions inside expressions, through definitions too: what the stack surely bears.
const DEEPEST_VALUE: usize = 400;
/// Messages that anybody reads.
const MOST_DIAGNOSTICS: usize = 1000;

/// A place where names live: the file's top level, or a block.
#[derive(Default)]
struct Scope {
    parent: Option<usize>,
    axis: Option<String>,
    /// Names for what goes along with the axis.
    along: Vec<String>,
    lets: BTreeMap<String, (Expr, Span)>,
}

/// A step as declared.
struct Family {
    syntax: Rc<StepSyntax>,
    scope: usize,
    members: Vec<usize>,
}

/// A value of an axis that a member stands at.
#[derive(Clone)]
struct Binding {
    axis: String,
    replicate: bool,
    label: String,
    value: Value,
    /// What goes along with the value, by name.
    along: Vec<(String, Value)>,
}

/// One step of a family.
struct Member {
    family: usize,
    bindings: Rc<[Binding]>,
    raw: Option<Rc<Record>>,
}

/// Where the members of a family lie, so that one among thousands is found without looking at each.
struct Places {
    /// The family's members when this was written down: their number, and the first one.
    of: (usize, Option<usize>),
    /// The axes that all members lie along; none where they differ in that.
    axes: Option<Vec<String>>,
    /// By axis and label the members there, ascending.
    at: FxHashMap<String, FxHashMap<String, Vec<usize>>>,
}

/// What lies in a scope, in order.
enum Node {
    Family(usize),
    Block { scope: usize, replicate: bool, axis: crate::syntax::Name, list: Expr, when: Option<Expr>, nodes: Vec<Node> },
    Claim(crate::syntax::ClaimSyntax, usize),
    Table(crate::syntax::TableSyntax, usize),
    Figure(crate::syntax::TableSyntax, usize),
}

struct Checker<'a> {
    catalog: &'a Catalog,
    loader: &'a dyn Loader,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
    scopes: Vec<Scope>,
    params: Vec<(String, Value, Span)>,
    families: Vec<Family>,
    names: BTreeMap<String, usize>,
    members: Vec<Member>,
    /// By family, once it is asked for.
    places: FxHashMap<usize, Places>,
    /// What `best` has to choose; each is a step behind the members.
    choices: Vec<choose::Chosen>,
    /// Where a field's name is, by where its value is.
    field_names: FxHashMap<(Span, String), Span>,
    work: usize,
    depth: usize,
    nesting: usize,
    /// Params that are not evaluated yet, and those that are being evaluated.
    pending: BTreeMap<String, Definition>,
    open_params: Vec<String>,
    /// The `let`s that are being evaluated, by where they are, and those that are known to be circular.
    open_lets: Vec<(Span, String)>,
    circular: FxHashSet<Span>,
    overrides: Overrides,
    /// Every axis: whether it is one to average over, and where it is first.
    axes: BTreeMap<String, (bool, Span)>,
    /// Members whose base is wrong, which was said: what they lack is not their fault.
    orphans: FxHashSet<usize>,
    /// Where the value of a name was written, by where the name stands.
    origins: FxHashMap<Span, (Span, String)>,
    /// Params that something uses, by where they are.
    used: FxHashSet<Span>,
    /// The numbers that tables, figures and claims show.
    reported: Vec<sound::Reported>,
    /// The measured numbers of claims, by where they are written.
    numbers: FxHashMap<Span, claims::Number>,
    /// Texts that look as if something in them were replaced, with what is named there.
    literal: Vec<(String, Diagnostic)>,
    /// Axes that are compared with a text: the axis, the text, and where the text is.
    compared: Vec<(String, String, Span)>,
    /// The values of axes that are written out as lists, and where the list is.
    listed: BTreeMap<String, (BTreeSet<String>, Span)>,
    /// Axes some of whose values are computed.
    unlisted: BTreeSet<String>,
}

/// Reads a program.
pub fn check(name: &str, text: &str, loader: &dyn Loader, catalog: &Catalog, overrides: &Overrides) -> Checked {
    let mut checker = Checker {
        catalog,
        loader,
        sources: Sources::default(),
        diagnostics: Vec::new(),
        scopes: vec![Scope::default()],
        params: Vec::new(),
        families: Vec::new(),
        names: BTreeMap::new(),
        members: Vec::new(),
        places: FxHashMap::default(),
        choices: Vec::new(),
        field_names: FxHashMap::default(),
        work: 0,
        depth: 0,
        nesting: 0,
        pending: BTreeMap::new(),
        open_params: Vec::new(),
        open_lets: Vec::new(),
        circular: FxHashSet::default(),
        overrides: overrides.clone(),
        axes: BTreeMap::new(),
        orphans: FxHashSet::default(),
        origins: FxHashMap::default(),
        used: FxHashSet::default(),
        reported: Vec::new(),
        numbers: FxHashMap::default(),
        literal: Vec::new(),
        compared: Vec::new(),
        listed: BTreeMap::new(),
        unlisted: BTreeSet::new(),
    };
    let items = checker.read(name, text, loader);
    checker.params(&items);
    let nodes = checker.declare(items, 0);
    checker.lets();
    checker.expand(&nodes, &[]);
    checker.spread();
    checker.places.clear();
    checker.childless();
    let steps = checker.steps();
    let mut program = Program { params: checker.param_values(), steps, ..Program::default() };
    let order = checker.order(&mut program.steps);
    checker.statements(&nodes, &[], &order, &mut program);
    // What statements choose is chosen last, and nothing depends on it.
    for at in program.steps.len() - checker.members.len()..checker.choices.len() {
        program.steps.push(checker.choice_step(at, &order));
    }
    if !checker.diagnostics.iter().any(|d| d.severity == Severity::Error) {
        checker.sound(&nodes, &program);
    }
    let mut diagnostics = std::mem::take(&mut checker.diagnostics);
    // One mistake in a family's text is found once for each member.
    let mut seen = FxHashSet::default();
    diagnostics.retain(|d| {
        // What is wrong with an expression is wrong whatever an axis' value makes of the message.
        let message = if matches!(d.code, "E0114" | "E0118") { String::new() } else { d.message.clone() };
        seen.insert((d.span, d.code, message))
    });
    diagnostics.sort_by_key(|d| (d.span.source, d.span.start, d.span.end));
    diagnostics.iter_mut().for_each(|d| d.locate(&checker.sources));
    let wrong = diagnostics.iter().any(|d| d.severity == Severity::Error);
    Checked { program: (!wrong).then_some(program), diagnostics, sources: checker.sources }
}

impl Checker<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        // Enough is enough; nobody reads a thousand messages.
        if self.diagnostics.len() < MOST_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Counts one piece of work; false once there is too much, said once.
    fn tick(&mut self, span: Span) -> bool {
        self.spend(1, span)
    }

    /// Counts work that grows with the program; false once there is too much, said once.
    fn spend(&mut self, pieces: usize, span: Span) -> bool {
        let before = self.work;
        self.work = self.work.saturating_add(pieces);
        if before < MOST_WORK && self.work >= MOST_WORK {
            self.diagnostics.push(
                Diagnostic::error("E0121", span, "the program is too large to be written out")
                    .label("while evaluating this"),
            );
        }
        self.work < MOST_WORK
    }

    fn unknown_name(&mut self, name: &str, span: Span) {
        if self.diagnostics.len() >= MOST_DIAGNOSTICS {
            return;
        }
        let mut known: Vec<&str> = self.names.keys().map(String::as_str).collect();
        known.extend(self.params.iter().map(|(name, ..)| name.as_str()));
        known.extend(self.scopes.iter().flat_map(|s| s.lets.keys().map(String::as_str).chain(s.axis.as_deref())));
        known.extend(self.scopes.iter().flat_map(|s| s.along.iter().map(String::as_str)));
        let diagnostic =
            Diagnostic::error("E0103", span, format!("nothing is called `{name}` here")).label("unknown name");
        let diagnostic = match borrowed(name) {
            Some(plain) => diagnostic.help(format!("write `{plain}`")).edit(span, plain),
            None => diagnostic.help_if(did_you_mean(name, known)),
        };
        self.report(diagnostic);
    }

    /// A word that is no name where a value is compared; in quotes it would be a text, if that is what it is compared with.
    fn unknown_word(&mut self, word: &str, span: Span, text: bool) {
        let before = self.diagnostics.len();
        self.unknown_name(word, span);
        if let Some(diagnostic) = self.diagnostics.get_mut(before).filter(|_| text) {
            diagnostic.help.push(format!("a text stands in quotes: `\"{word}\"`"));
        }
    }

    fn kind_of(&self, family: usize) -> Option<&'_ Kind> {
        self.catalog.kind(&self.families[family].syntax.kind.text)
    }

    /// Where a family's name is declared.
    fn declared(&self, family: usize) -> Span {
        self.families[family].syntax.name.span
    }

    fn family_name(&self, family: usize) -> String {
        self.families[family].syntax.name.text.clone()
    }

    fn label(&self, member: usize) -> String {
        let member = &self.members[member];
        let name = self.family_name(member.family);
        if member.bindings.is_empty() {
            return name;
        }
        let places: Vec<String> = member.bindings.iter().map(|b| format!("{}={}", b.axis, b.label)).collect();
        format!("{name}[{}]", places.join(", "))
    }

    /// The raw fields of a member: those of its base, and its own over them.
    fn raw(&mut self, member: usize) -> Rc<Record> {
        if let Some(raw) = &self.members[member].raw {
            return raw.clone();
        }
        let family = self.members[member].family;
        let (scope, syntax) = (self.families[family].scope, self.families[family].syntax.clone());
        let bindings = self.members[member].bindings.clone();
        let mut record = Record::new();
        if let Some(base) = &syntax.base {
            if self.depth >= DEEPEST {
                self.report(
                    Diagnostic::error(
                        "E0115",
                        base.span,
                        format!("`{}` starts from itself, or from too many steps in a row", syntax.name.text),
                    )
                    .label("leads back here"),
                );
            } else if let Some(&from) = self.names.get(&base.text) {
                let same = self.families[from].syntax.kind.text == syntax.kind.text;
                if !same {
                    let (mine, other) = (&syntax.kind.text, self.families[from].syntax.kind.text.clone());
                    self.report(
                        Diagnostic::error(
                            "E0106",
                            base.span,
                            format!("`{}` is a `{other}`, and this is a `{mine}`", base.text),
                        )
                        .label("another kind of step"),
                    );
                } else {
                    let index = self.index(&syntax.index, scope, &bindings);
                    let whole = FamilyRef::whole(from, base.text.clone());
                    let reference = FamilyRef { index: index.unwrap_or_default(), ..whole };
                    if let Some(base_member) = self.one(&reference, &bindings, base.span) {
                        self.depth += 1;
                        record = self.raw(base_member).as_ref().clone();
                        self.depth -= 1;
                        let weight = record.iter().map(|(_, value)| value.weight()).sum();
                        self.spend(weight, base.span);
                    }
                }
            } else {
                let names: Vec<String> = self.names.keys().cloned().collect();
                self.report(
                    Diagnostic::error("E0103", base.span, format!("no step is called `{}`", base.text))
                        .label("unknown step")
                        .help_if(did_you_mean(&base.text, names.iter().map(String::as_str))),
                );
            }
        }
        if syntax.base.is_some() && record.is_empty() && !self.diagnostics.is_empty() {
            self.orphans.insert(member);
        }
        let own = self.record(&syntax.fields, scope, &bindings);
        for (path, value) in own {
            set(&mut record, &path, value);
        }
        let record = Rc::new(record);
        self.members[member].raw = Some(record.clone());
        record
    }

    /// Evaluates written fields, each with its path.
    fn record(&mut self, fields: &[FieldSyntax], scope: usize, bindings: &[Binding]) -> Vec<(Vec<String>, Value)> {
        let mut seen: BTreeMap<Vec<String>, Span> = BTreeMap::new();
        let mut out = Vec::new();
        for field in fields {
            let path: Vec<String> = field.path.iter().map(|name| name.text.clone()).collect();
            let Some((first, last)) = field.path.first().zip(field.path.last()) else { continue };
            let span = first.span.to(last.span);
            if let Some(before) = seen.insert(path.clone(), span) {
                self.report(
                    Diagnostic::error("E0122", span, format!("`{}` is set twice", path.join(".")))
                        .label("set again here")
                        .related(before, "set here first"),
                );
                continue;
            }
            let value = self.evaluate(&field.value, scope, bindings);
            for name in &field.path {
                self.field_names.insert((value.span, name.text.clone()), name.span);
            }
            out.push((path, value));
        }
        out
    }

    /// Like [`Self::record`], as a record value.
    fn record_value(&mut self, fields: &[FieldSyntax], scope: usize, bindings: &[Binding]) -> Record {
        let mut record = Record::new();
        // A step may join thousands: what is new is not looked for among them.
        let mut known = FxHashSet::default();
        for (path, value) in self.record(fields, scope, bindings) {
            let new = known.insert(path[0].clone());
            if new && path.len() == 1 {
                record.push((path[0].clone(), value));
            } else if path.len() == 1 {
                merge_record(&mut record, vec![(path[0].clone(), value)]);
            } else {
                set(&mut record, &path, value);
            }
        }
        record
    }

    /// The one member that a reference means from a member with these bindings.
    fn one(&mut self, reference: &FamilyRef, bindings: &[Binding], span: Span) -> Option<usize> {
        let found = self.select(reference, bindings, span)?;
        match found.as_slice() {
            [only] => Some(*only),
            [] => {
                let places: Vec<String> = bindings.iter().map(|b| format!("{} = {}", b.axis, b.label)).collect();
                let name = self.family_name(reference.family);
                self.report(
                    Diagnostic::error("E0113", span, format!("`{name}` has no member here"))
                        .label("no such member")
                        .note(format!("looked for {}", places.join(", "))),
                );
                None
            }
            [first, ..] => {
                let fixed: Vec<&str> = bindings.iter().map(|b| b.axis.as_str()).collect();
                let free = self.members[*first].bindings.iter().find(|b| {
                    !fixed.contains(&b.axis.as_str()) && !reference.index.iter().any(|place| place.names(&b.axis))
                });
                let (axis, label) = free.map_or(("axis".into(), "value".into()), |b| (b.axis.clone(), b.label.clone()));
                let name = self.family_name(reference.family);
                self.report(
                    Diagnostic::error(
                        "E0112",
                        span,
                        format!("`{name}` has several members along `{axis}`, and one is needed"),
                    )
                    .label("which one?")
                    .related(self.declared(reference.family), format!("`{name}` defined here"))
                    .help(format!("write `{name}[{axis} = {label}]`, or put this inside the same block")),
                );
                None
            }
        }
    }

    /// The members that fit a reference's index and, where nothing is indexed, the bindings.
    fn select(&mut self, reference: &FamilyRef, bindings: &[Binding], span: Span) -> Option<Vec<usize>> {
        let family = reference.family;
        let members = self.families[family].members.len();
        // Without members its axis is wrong, which has been reported.
        if members == 0 || !self.spend(members / 64, span) {
            return None;
        }
        if reference.index.is_empty()
            && let Some(found) = self.lined_up(family, bindings)
        {
            return Some(found);
        }
        let mut found = self.families[family].members.clone();
        let axes: Vec<String> = found
            .first()
            .map(|m| self.members[*m].bindings.iter().map(|b| b.axis.clone()).collect())
            .unwrap_or_default();
        let mut fixed: Vec<String> = Vec::new();
        for value::Place { axis, label, span: at } in &reference.index {
            let axis = match axis {
                Some((axis, _)) if axes.contains(axis) => axis.clone(),
                Some((axis, at)) => {
                    let name = self.family_name(family);
                    let known: Vec<&str> = axes.iter().map(String::as_str).collect();
                    self.report(
                        Diagnostic::error("E0113", *at, format!("`{name}` has no axis `{axis}`"))
                            .label("unknown axis")
                            .related(self.declared(family), format!("`{name}` defined here"))
                            .help_if(nearest_or_all(axis, &known)),
                    );
                    return None;
                }
                None => {
                    let fitting: Vec<&String> = axes
                        .iter()
                        .filter(|axis| {
                            found.iter().any(|m| {
                                self.members[*m].bindings.iter().any(|b| b.axis == **axis && b.label == *label)
                            })
                        })
                        .collect();
                    match fitting.as_slice() {
                        [only] => (*only).clone(),
                        [] => {
                            let name = self.family_name(family);
                            let labels: Vec<String> = self.families[family]
                                .members
                                .iter()
                                .flat_map(|m| self.members[*m].bindings.iter().map(|b| b.label.clone()))
                                .collect::<std::collections::BTreeSet<_>>()
                                .into_iter()
                                .collect();
                            let known: Vec<&str> = labels.iter().map(String::as_str).collect();
                            self.report(
                                Diagnostic::error("E0113", *at, format!("`{name}` has no member `{label}`"))
                                    .label("no such member")
                                    .related(self.declared(family), format!("`{name}` defined here"))
                                    .help_if(nearest_or_all(label, &known)),
                            );
                            return None;
                        }
                        [first, ..] => {
                            let help = format!("name the axis: `{first} = {label}`");
                            self.report(
                                Diagnostic::error("E0113", *at, format!("`{label}` lies on several axes"))
                                    .label("on which axis?")
                                    .help(help),
                            );
                            return None;
                        }
                    }
                }
            };
            found.retain(|m| self.members[*m].bindings.iter().any(|b| b.axis == axis && b.label == *label));
            if found.is_empty() {
                let name = self.family_name(family);
                self.report(
                    Diagnostic::error("E0113", *at, format!("`{name}` has no member with {axis} = {label}"))
                        .label("no such member"),
                );
                return None;
            }
            fixed.push(axis);
        }
        for binding in bindings.iter().filter(|b| !fixed.contains(&b.axis)) {
            found.retain(|m| {
                self.members[*m].bindings.iter().all(|b| b.axis != binding.axis || b.label == binding.label)
            });
        }
        Some(found)
    }

    /// The members that lie where the bindings are, on the axes that they share; none where the family has to be looked
    /// through.
    fn lined_up(&mut self, family: usize, bindings: &[Binding]) -> Option<Vec<usize>> {
        let members = &self.families[family].members;
        let of = (members.len(), members.first().copied());
        if self.places.get(&family).is_none_or(|places| places.of != of) {
            let axes = |member: &usize| self.members[*member].bindings.iter().map(|b| b.axis.as_str());
            let first: Vec<String> = members.first().map(axes)?.map(str::to_owned).collect();
            let same = members.iter().all(|member| axes(member).eq(first.iter().map(String::as_str)));
            let mut at: FxHashMap<String, FxHashMap<String, Vec<usize>>> = FxHashMap::default();
            for &member in members.iter().filter(|_| same) {
                for binding in self.members[member].bindings.iter() {
                    let labels = match at.get_mut(&binding.axis) {
                        Some(labels) => labels,
                        None => at.entry(binding.axis.clone()).or_default(),
                    };
                    match labels.get_mut(&binding.label) {
                        Some(there) => there.push(member),
                        None => drop(labels.insert(binding.label.clone(), vec![member])),
                    }
                }
            }
            self.places.insert(family, Places { of, axes: same.then_some(first), at });
        }
        let places = self.places.get(&family)?;
        let axes = places.axes.as_ref()?;
        let shared: Vec<&Binding> = bindings.iter().filter(|b| axes.contains(&b.axis)).collect();
        let mut fewest: &[usize] = &self.families[family].members;
        for binding in &shared {
            let there = places.at.get(&binding.axis).and_then(|labels| labels.get(&binding.label));
            let there = there.map(Vec::as_slice).unwrap_or_default();
            if there.len() < fewest.len() {
                fewest = there;
            }
        }
        let fits = |member: &&usize| {
            let lies = &self.members[**member].bindings;
            shared.iter().all(|b| lies.iter().any(|own| own.axis == b.axis && own.label == b.label))
        };
        Some(fewest.iter().filter(fits).copied().collect())
    }

    /// The member and output that an input field takes.
    fn input(
        &mut self,
        reference: &FamilyRef,
        accepted: &[String],
        span: Span,
        place: &str,
        from: usize,
    ) -> Option<(usize, String)> {
        let bindings = self.members[from].bindings.clone();
        // What `best` may choose among is of one kind, and gives the same outputs.
        let pick = match &reference.best {
            Some(_) => Some(self.choose(reference, &bindings, None, span, false)?.into_iter().next()?),
            None => None,
        };
        let member = match &pick {
            Some(pick) => pick.example,
            None => self.one(reference, &bindings, span)?,
        };
        let name = self.family_name(reference.family);
        let kind = self.kind_of(reference.family)?;
        let (kind_name, dynamic) = (kind.name.clone(), kind.dynamic_outputs);
        let mut outputs: Vec<(String, String)> =
            kind.outputs.iter().map(|o| (o.name.clone(), o.artifact.clone())).collect();
        if dynamic {
            outputs.extend(self.declared_outputs(member));
        }
        for (_, artifact) in &mut outputs {
            if let Some(field) = artifact.strip_prefix("same as ") {
                *artifact = self.artifact_in(member, field, 0);
            }
        }
        // A step's first output as it was at an epoch is an output of its own, where the step says that it keeps it.
        if let Some((epoch, at)) = reference.output.as_ref().filter(|(output, _)| output.starts_with('@')) {
            let artifact = outputs.first()?.1.clone();
            let all = match &pick {
                Some(pick) => self.choices[pick.step - self.members.len()].of.clone(),
                None => vec![member],
            };
            for member in all {
                self.kept(member, &name, epoch, *at)?;
            }
            outputs.push((epoch.clone(), artifact));
        }
        let names: Vec<&str> = outputs.iter().map(|(name, _)| name.as_str()).collect();
        let chosen = match &reference.output {
            Some((output, at)) => match outputs.iter().find(|(known, _)| known == output) {
                Some(found) => found,
                None => {
                    self.report(
                        Diagnostic::error("E0110", *at, format!("`{name}` gives no `{output}`"))
                            .label("unknown output")
                            .related(self.declared(reference.family), format!("`{name}` defined here"))
                            .help_if(nearest_or_all(output, &names)),
                    );
                    return None;
                }
            },
            None if dynamic && outputs.len() != 1 => {
                self.report(
                    Diagnostic::error(
                        "E0110",
                        span,
                        format!("`{name}` gives {} outputs; say which one", outputs.len()),
                    )
                    .label("which output?")
                    .help_if(crate::suggest::list(&names).map(|all| format!("there is {all}"))),
                );
                return None;
            }
            None if outputs.is_empty() => {
                let message = format!("`{place}` takes {}, and `{name}` gives nothing", with_articles(accepted));
                self.report(
                    Diagnostic::error("E0109", span, message).label(format!("a `{kind_name}` measures numbers only")),
                );
                return None;
            }
            None => outputs.first()?,
        };
        if !accepted.contains(&chosen.1) && chosen.1 != "any" && !accepted.iter().any(|artifact| artifact == "any") {
            let fitting: Vec<String> = outputs
                .iter()
                .filter(|(_, artifact)| accepted.contains(artifact))
                .map(|(output, _)| format!("`{name}.{output}`"))
                .collect();
            let mut diagnostic = Diagnostic::error(
                "E0109",
                span,
                format!("`{place}` takes {}, and `{name}` gives {}", with_articles(accepted), with_article(&chosen.1)),
            )
            .label(format!("this is a `{kind_name}`"))
            .related(self.declared(reference.family), format!("`{name}` defined here"));
            if !fitting.is_empty() {
                diagnostic = diagnostic.help(format!("{} would fit", fitting.join(" or ")));
            }
            self.report(diagnostic);
            return None;
        }
        let output = if chosen.0.starts_with('@') { format!("{}{}", outputs[0].0, chosen.0) } else { chosen.0.clone() };
        Some((pick.map_or(member, |pick| pick.step), output))
    }

    /// Makes sure that a step keeps what is asked for as `@EPOCH`: its list `keep` says so.
    fn kept(&mut self, member: usize, name: &str, epoch: &str, at: Span) -> Option<()> {
        let raw = self.raw(member);
        let list = raw.iter().find(|(field, _)| field == "keep").map(|(_, value)| value.kind.clone());
        let known = self.kind_of(self.members[member].family)?.field("keep").is_some();
        let number = epoch.trim_start_matches('@');
        let (label, help) = match &list {
            Some(ValueKind::Wrong) => return None,
            Some(ValueKind::List(items))
                if items.iter().any(|item| matches!(item.kind, ValueKind::Int(kept) if kept.to_string() == number)) =>
            {
                return Some(());
            }
            _ if !known => ("this kind of step keeps none".to_owned(), None),
            Some(ValueKind::List(items)) if !items.is_empty() => {
                let kept: Vec<String> = items.iter().filter_map(Value::number).map(|kept| format!("@{kept}")).collect();
                (format!("kept are {}", kept.join(", ")), Some(format!("add {number} to `keep` of `{name}`")))
            }
            _ => ("nothing is kept".to_owned(), Some(format!("write `keep = [{number}]` in `{name}`"))),
        };
        let message = format!("`{name}` does not keep what it was after epoch {number}");
        let family = self.members[member].family;
        let keeps = list.is_some().then(|| raw.iter().find(|(field, _)| field == "keep").map(|(_, value)| value.span));
        let place = keeps.flatten().unwrap_or_else(|| self.declared(family));
        let said = if list.is_some() { "what is kept" } else { "defined here" };
        let related = if list.is_some() { said.to_owned() } else { format!("`{name}` {said}") };
        self.report(Diagnostic::error("E0110", at, message).label(label).related(place, related).help_if(help));
        None
    }

    /// The artifact of the step that stands in `field` of `member`; `any` where nothing can be told, since what is wrong
    /// there is said there.
    fn artifact_in(&mut self, member: usize, field: &str, depth: usize) -> String {
        let raw = self.raw(member);
        let value = raw.iter().find(|(name, _)| name == field).map(|(_, value)| &value.kind);
        let reference = match value {
            Some(ValueKind::Family(reference)) => Some(reference),
            Some(ValueKind::List(items)) => match items.first().map(|item| &item.kind) {
                Some(ValueKind::Family(reference)) => Some(reference),
                _ => None,
            },
            _ => None,
        };
        let unknown = || "any".to_owned();
        let Some(reference) = reference.filter(|_| depth < DEEPEST) else { return unknown() };
        let Some(kind) = self.kind_of(reference.family) else { return unknown() };
        let output = match &reference.output {
            Some((name, _)) => kind.output(name),
            None => kind.outputs.first(),
        };
        let Some(artifact) = output.map(|output| output.artifact.clone()) else { return unknown() };
        let Some(field) = artifact.strip_prefix("same as ") else { return artifact };
        // Of several members the one that lines up with this one counts; any other is of the same kind of step.
        let bindings = self.members[member].bindings.clone();
        let lines_up = |other: &Member| {
            let differs = |b: &Binding| bindings.iter().any(|own| own.axis == b.axis && own.label != b.label);
            other.family == reference.family && !other.bindings.iter().any(differs)
        };
        match self.members.iter().position(lines_up) {
            Some(next) => self.artifact_in(next, field, depth + 1),
            None => unknown(),
        }
    }

    /// Outputs that a step declares itself, in its field `outputs`.
    fn declared_outputs(&mut self, member: usize) -> Vec<(String, String)> {
        let raw = self.raw(member);
        let Some((_, Value { kind: ValueKind::Record(outputs), .. })) = raw.iter().find(|(name, _)| name == "outputs")
        else {
            return Vec::new();
        };
        outputs
            .iter()
            .filter_map(|(name, value)| {
                let ValueKind::Record(fields) = &value.kind else { return None };
                match fields.iter().find(|(field, _)| field == "kind").map(|(_, value)| &value.kind) {
                    Some(ValueKind::Text(kind) | ValueKind::Word(kind)) => Some((name.clone(), kind.clone())),
                    _ => None,
                }
            })
            .collect()
    }

    /// Fits every member's fields. References are still members' numbers, in the order of declaration.
    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for id in 0..self.members.len() {
            let family = self.members[id].family;
            let syntax = self.families[family].syntax.clone();
            let raw = self.raw(id);
            let mut out = fit::Fitted::default();
            let mut params = serde_json::Map::new();
            let bindings = self.members[id].bindings.clone();
            if let Some(kind) = self.catalog.kind(&syntax.kind.text) {
                params = self.fit_fields(
                    &raw,
                    &kind.fields,
                    &format!("`{}`", kind.name),
                    "",
                    syntax.name.span,
                    id,
                    &mut out,
                );
                if kind.random
                    && !raw.iter().any(|(name, _)| name == "seed")
                    && let Some(ValueKind::Int(seed)) =
                        bindings.iter().rev().find(|b| b.replicate).map(|b| &b.value.kind)
                {
                    params.insert("seed".into(), (*seed).into());
                }
            }
            out.inputs.sort_unstable();
            out.inputs.dedup();
            steps.push(Step {
                id,
                name: syntax.name.text.clone(),
                label: self.label(id),
                kind: syntax.kind.text.clone(),
                axes: bindings
                    .iter()
                    .map(|b| Axis { name: b.axis.clone(), value: b.label.clone(), replicate: b.replicate })
                    .collect(),
                params,
                inputs: out.inputs,
                span: syntax.name.span,
                field_spans: out.spans,
                implied: false,
                choice: None,
            });
        }
        for at in 0..self.choices.len() {
            let step = self.choice_step(at, &[]);
            steps.push(step);
        }
        steps
    }

    /// Puts steps behind what they need, and renumbers them. Gives the new number of each member.
    fn order(&mut self, steps: &mut Vec<Step>) -> Vec<usize> {
        let mut waiting: Vec<usize> = steps.iter().map(|step| step.inputs.len()).collect();
        let mut dependents = vec![Vec::new(); steps.len()];
        for step in steps.iter() {
            step.inputs.iter().for_each(|&input| dependents[input].push(step.id));
        }
        let mut ready: std::collections::BTreeSet<usize> = (0..steps.len()).filter(|&id| waiting[id] == 0).collect();
        let mut sorted = Vec::new();
        while let Some(id) = ready.pop_first() {
            sorted.push(id);
            for &next in &dependents[id] {
                waiting[next] -= 1;
                if waiting[next] == 0 {
                    ready.insert(next);
                }
            }
        }
        if let Some(stuck) = steps.iter().find(|step| waiting[step.id] > 0) {
            let around: Vec<String> =
                steps.iter().filter(|s| waiting[s.id] > 0).map(|s| format!("`{}`", s.label)).take(5).collect();
            self.report(
                Diagnostic::error("E0115", stuck.span, format!("`{}` needs its own result", stuck.name))
                    .label("leads back to itself")
                    .note(format!("the circle: {}", around.join(", "))),
            );
            return (0..steps.len()).collect();
        }
        let mut new = vec![0; steps.len()];
        sorted.iter().enumerate().for_each(|(position, &id)| new[id] = position);
        let mut old: Vec<Option<Step>> = steps.drain(..).map(Some).collect();
        for id in sorted {
            let Some(mut step) = old[id].take() else { continue };
            step.id = new[id];
            step.inputs.iter_mut().for_each(|input| *input = new[*input]);
            step.inputs.sort_unstable();
            step.params.values_mut().for_each(|value| renumber(value, &new));
            steps.push(step);
        }
        new
    }

    fn param_values(&self) -> Vec<(String, serde_json::Value)> {
        self.params.iter().map(|(name, value, _)| (name.clone(), self.json(value))).collect()
    }

    fn json(&self, value: &Value) -> serde_json::Value {
        use serde_json::json;
        match &value.kind {
            ValueKind::None | ValueKind::Wrong => serde_json::Value::Null,
            ValueKind::Bool(flag) => json!(flag),
            ValueKind::Int(number) | ValueKind::Size(number) => json!(number),
            ValueKind::Float(number) | ValueKind::Duration(number) => json!(number),
            ValueKind::Text(text) | ValueKind::Word(text) => json!(text),
            ValueKind::Path(root, path) => json!(format!("@{root}/{path}")),
            ValueKind::Range(low, high, _) => json!([low, high]),
            ValueKind::List(items) => items.iter().map(|item| self.json(item)).collect(),
            ValueKind::Record(record) => record.iter().map(|(name, value)| (name.clone(), self.json(value))).collect(),
            ValueKind::Tagged(tag, record) => {
                let body: serde_json::Map<_, _> =
                    record.iter().map(|(name, value)| (name.clone(), self.json(value))).collect();
                json!({ tag.as_str(): body })
            }
            ValueKind::Family(reference) => json!(self.family_name(reference.family)),
        }
    }
}

/// The word of this language for one of others.
fn borrowed(word: &str) -> Option<&'static str> {
    match word {
        "True" | "TRUE" => Some("true"),
        "False" | "FALSE" => Some("false"),
        "None" | "NONE" | "null" | "nil" => Some("none"),
        _ => None,
    }
}

/// `an encoder`, but `images`.
fn with_article(artifact: &str) -> String {
    match artifact.as_bytes().first() {
        _ if artifact.ends_with('s') => artifact.to_owned(),
        Some(b'a' | b'e' | b'i' | b'o' | b'u') => format!("an {artifact}"),
        _ => format!("a {artifact}"),
    }
}

/// Several of them, joined by `or`.
pub(crate) fn with_articles(artifacts: &[String]) -> String {
    artifacts.iter().map(|artifact| with_article(artifact)).collect::<Vec<_>>().join(" or ")
}

fn renumber(value: &mut serde_json::Value, new: &[usize]) {
    match value {
        serde_json::Value::Object(map) => {
            if let Some(step) = map.get_mut("$ref").and_then(|reference| reference.get_mut("step"))
                && let Some(id) = step.as_u64()
            {
                *step = new.get(id as usize).copied().unwrap_or_default().into();
                return;
            }
            map.values_mut().for_each(|inner| renumber(inner, new));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|inner| renumber(inner, new)),
        _ => {}
    }
}

/// The items of a text, for [`declare`].
type Items = Vec<Item>;
