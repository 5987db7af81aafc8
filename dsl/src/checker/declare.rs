//! Files to items, items to scopes and families, families to members.

use super::value::{Value, ValueKind};
use super::{
    Binding, Checker, DEEPEST, DEEPEST_VALUE, Family, Items, MOST_DIAGNOSTICS, MOST_STEPS, Member, Node, Scope,
};
use crate::Loader;
use crate::diagnostic::{Diagnostic, Severity};
use crate::parser::{parse, parse_expression};
use crate::source::Span;
use crate::suggest::{did_you_mean, nearest_or_all};
use crate::syntax::{ExprKind, Item};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// Files of one program.
const MOST_FILES: usize = 1000;
/// Bytes of one file.
const LARGEST_FILE: usize = 64 << 20;

impl Checker<'_> {
    /// The items of a file with those of its imports before them, each file once.
    pub(super) fn read(&mut self, name: &str, text: &str, loader: &dyn Loader) -> Items {
        let mut done: Vec<String> = Vec::new();
        self.read_file(name, text, loader, &mut done, &mut vec![name.to_string()])
    }

    fn read_file(
        &mut self,
        name: &str,
        text: &str,
        loader: &dyn Loader,
        done: &mut Vec<String>,
        open: &mut Vec<String>,
    ) -> Items {
        done.push(name.to_string());
        let source = self.sources.add(name, text);
        let items = parse(text, source, &mut self.diagnostics);
        self.diagnostics.truncate(MOST_DIAGNOSTICS);
        let mut all = Vec::new();
        for item in items {
            let Item::Import { path, span } = &item else {
                all.push(item);
                continue;
            };
            match loader.load(Some(name), path) {
                Err(why) => self.report(
                    Diagnostic::error("E0116", *span, format!("\"{path}\" cannot be imported: {why}"))
                        .label("imported here"),
                ),
                Ok(loaded) if open.contains(&loaded.name) => {
                    let circle = open.join(" imports ");
                    self.report(
                        Diagnostic::error("E0116", *span, "the imports form a circle")
                            .label("leads back")
                            .note(format!("{circle} imports {}", loaded.name)),
                    );
                }
                Ok(loaded) if done.contains(&loaded.name) => {}
                Ok(_) if done.len() >= MOST_FILES => {
                    let message = format!("more than {MOST_FILES} files are imported");
                    self.report(Diagnostic::error("E0116", *span, message).label("imported here"));
                    return all;
                }
                Ok(loaded) if loaded.text.len() > LARGEST_FILE => self.report(
                    Diagnostic::error("E0116", *span, format!("\"{path}\" is larger than 64 MiB, which no program is"))
                        .label("imported here"),
                ),
                Ok(_) if open.len() > 64 => {
                    self.report(Diagnostic::error("E0116", *span, "imports are nested too deep").label("imported here"))
                }
                Ok(loaded) => {
                    open.push(loaded.name.clone());
                    all.extend(self.read_file(&loaded.name, &loaded.text, loader, done, open));
                    open.pop();
                }
            }
        }
        all
    }

    /// Evaluates params, each under its override. They may use each other and the top level's `let`s in any order.
    pub(super) fn params(&mut self, items: &Items) {
        let mut order: Vec<String> = Vec::new();
        for item in items {
            match item {
                Item::Param(definition) => {
                    let (name, span) = (definition.name.text.clone(), definition.name.span);
                    if let Some(known) = self.pending.get(&name) {
                        let diagnostic = Diagnostic::error("E0102", span, format!("`{name}` is declared twice"))
                            .label("declared again")
                            .related(known.name.span, "declared here first");
                        self.report(diagnostic);
                        continue;
                    }
                    self.pending.insert(name.clone(), definition.clone());
                    order.push(name);
                }
                Item::Let(definition) => {
                    let known = self.scopes[0].lets.entry(definition.name.text.clone());
                    known.or_insert_with(|| (definition.value.clone(), definition.name.span));
                }
                _ => {}
            }
        }
        for name in &order {
            self.param(name);
        }
        let place: HashMap<&String, usize> = order.iter().enumerate().map(|(place, name)| (name, place)).collect();
        self.params.sort_by_key(|(name, ..)| place.get(name).copied());
        for (name, text) in self.overrides.clone() {
            if place.contains_key(&name) {
                continue;
            }
            let source = self.sources.add(format!("-p {name}"), text.clone());
            let known: Vec<&str> = order.iter().map(String::as_str).collect();
            let at = Span { source, start: 0, end: text.len() };
            self.report(
                Diagnostic::error("E0117", at, format!("there is no param `{name}`"))
                    .label(format!("given as `{name}={text}`"))
                    .help_if(nearest_or_all(&name, &known)),
            );
        }
        // `declare` looks at every `let` for itself.
        self.scopes[0].lets.clear();
    }

    /// Evaluates one param unless it has a value.
    pub(super) fn param(&mut self, name: &str) {
        let Some(definition) = self.pending.remove(name) else { return };
        let (name, span) = (definition.name.text.clone(), definition.name.span);
        // While it is evaluated it stands for nothing, so a param that needs itself ends here.
        self.params.push((name.clone(), Value { kind: ValueKind::Wrong, span }, span));
        let place = self.params.len() - 1;
        self.open_params.push(name.clone());
        let mut value = self.evaluate(&definition.value, 0, &[]);
        if let ValueKind::Word(word) = &value.kind {
            let word = word.clone();
            self.unknown_name(&word, value.span);
            value.kind = ValueKind::Wrong;
        }
        let overrides: Vec<String> =
            self.overrides.iter().filter(|(known, _)| *known == name).map(|(_, text)| text.clone()).collect();
        for text in overrides {
            let source = self.sources.add(format!("-p {name}"), text.clone());
            let at = Span { source, start: 0, end: text.len() };
            let mut found = Vec::new();
            let parsed = parse_expression(&text, source, &mut found);
            // Words of a command line are texts where a text is wanted, whatever else has their name.
            let bare = matches!(value.kind, ValueKind::Text(_)) && !text.trim_start().starts_with('"');
            let over = match (parsed.filter(|_| !bare), &value.kind) {
                (Some(expr), _) => self.evaluate(&expr, 0, &[]),
                (None, ValueKind::Text(_)) => Value { kind: ValueKind::Text(text.clone()), span: at },
                (None, _) => {
                    self.diagnostics.append(&mut found);
                    continue;
                }
            };
            match fit_param(&value.kind, over.kind, &text) {
                Ok(kind) => value = Value { kind, span: at },
                Err(other) => {
                    let other = Value { kind: other, span: at };
                    self.report(
                        Diagnostic::error(
                            "E0117",
                            at,
                            format!("param `{name}` is {}, and cannot be {}", value.found(), other.found()),
                        )
                        .label("another type than the default")
                        .related(span, "declared here"),
                    );
                }
            }
        }
        self.open_params.pop();
        if value.depth() > DEEPEST_VALUE {
            self.report(
                Diagnostic::error("E0012", span, format!("values are nested deeper than {DEEPEST_VALUE} levels"))
                    .label("too deep"),
            );
            value.kind = ValueKind::Wrong;
        }
        self.params[place].1 = value;
    }

    /// Evaluates the top level's `let`s, so that a mistake in one that nothing uses is found too.
    pub(super) fn lets(&mut self) {
        let names: Vec<(String, Span)> =
            self.scopes[0].lets.iter().map(|(name, (_, span))| (name.clone(), *span)).collect();
        for (name, span) in names {
            self.look_up(&name, span, 0, &[]);
        }
    }

    /// Registers scopes, lets and families.
    pub(super) fn declare(&mut self, items: Items, scope: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        for item in items {
            match item {
                Item::Import { span, .. } => {
                    self.report(
                        Diagnostic::error("E0116", span, "imports stand at the top level").label("inside a block"),
                    );
                }
                Item::Param(definition) if scope != 0 => {
                    self.report(
                        Diagnostic::error("E0117", definition.name.span, "params stand at the top level")
                            .label("inside a block")
                            .help("write `let` here"),
                    );
                }
                Item::Param(_) => {}
                Item::Let(definition) => {
                    let (name, span) = (definition.name.text, definition.name.span);
                    if let Some((_, before)) = self.scopes[scope].lets.get(&name) {
                        let diagnostic = Diagnostic::error("E0102", span, format!("`{name}` is declared twice"))
                            .label("declared again")
                            .related(*before, "declared here first");
                        self.report(diagnostic);
                        continue;
                    }
                    if let Some((_, _, before)) = self.params.iter().find(|(known, ..)| *known == name) {
                        let diagnostic = Diagnostic::error("E0102", span, format!("`{name}` is a param already"))
                            .label("declared again")
                            .related(*before, "declared here first");
                        self.report(diagnostic);
                    }
                    if let Some(before) = self.names.get(&name).map(|&family| self.families[family].syntax.name.span)
                        && scope == 0
                    {
                        let diagnostic = Diagnostic::error("E0102", span, format!("`{name}` is declared twice"))
                            .label("declared again")
                            .related(before, "declared here first");
                        self.report(diagnostic);
                    }
                    self.scopes[scope].lets.insert(name, (definition.value, span));
                }
                Item::Step(syntax) => {
                    let (name, span) = (syntax.name.text.clone(), syntax.name.span);
                    if self.catalog.kind(&syntax.kind.text).is_none() {
                        let known: Vec<&str> = self.catalog.kinds.iter().map(|kind| kind.name.as_str()).collect();
                        let help = did_you_mean(&syntax.kind.text, crate::parser::DECLARATIONS)
                            .or_else(|| nearest_or_all(&syntax.kind.text, &known));
                        self.report(
                            Diagnostic::error(
                                "E0101",
                                syntax.kind.span,
                                format!("there is no kind of step `{}`", syntax.kind.text),
                            )
                            .label("unknown kind")
                            .help_if(help),
                        );
                    }
                    let earlier = self.names.get(&name).map(|&family| self.families[family].syntax.name.span);
                    let value = self.params.iter().find(|(known, ..)| *known == name).map(|(_, _, span)| *span);
                    let value = value.or_else(|| self.scopes[0].lets.get(&name).map(|(_, span)| *span));
                    if let Some(before) = earlier.or(value) {
                        let diagnostic = Diagnostic::error("E0102", span, format!("`{name}` is declared twice"))
                            .label("declared again")
                            .related(before, "declared here first");
                        self.report(diagnostic);
                        continue;
                    }
                    let family = self.families.len();
                    self.families.push(Family { syntax: Rc::new(syntax), scope, members: Vec::new() });
                    self.names.insert(name, family);
                    nodes.push(Node::Family(family));
                }
                Item::Block(block) => {
                    let mut outer = Some(scope);
                    while let Some(index) = outer {
                        if self.scopes[index].axis.as_ref() == Some(&block.axis.text) {
                            self.report(
                                Diagnostic::error(
                                    "E0114",
                                    block.axis.span,
                                    format!("the axis `{}` is already open around this block", block.axis.text),
                                )
                                .label("nested in itself"),
                            );
                        }
                        outer = self.scopes[index].parent;
                    }
                    match self.axes.get(&block.axis.text) {
                        Some(&(replicate, before)) if replicate != block.replicate => {
                            let word = |replicate: bool| if replicate { "replicate" } else { "for" };
                            let diagnostic = Diagnostic::error(
                                "E0114",
                                block.axis.span,
                                format!("the axis `{}` is both of `for` and of `replicate`", block.axis.text),
                            )
                            .label(format!("of `{}` here", word(block.replicate)))
                            .related(before, format!("of `{}` here", word(replicate)));
                            self.report(diagnostic);
                        }
                        Some(_) => {}
                        None => {
                            self.axes.insert(block.axis.text.clone(), (block.replicate, block.axis.span));
                        }
                    }
                    let inner = self.scopes.len();
                    self.scopes.push(Scope {
                        parent: Some(scope),
                        axis: Some(block.axis.text.clone()),
                        along: block.along.iter().map(|name| name.text.clone()).collect(),
                        ..Scope::default()
                    });
                    let children = self.declare(block.items, inner);
                    nodes.push(Node::Block {
                        scope: inner,
                        replicate: block.replicate,
                        axis: block.axis,
                        list: block.list,
                        when: block.when,
                        nodes: children,
                    });
                }
                Item::Claim(claim) => nodes.push(Node::Claim(claim, scope)),
                Item::Table(table) => nodes.push(Node::Table(table, scope)),
                Item::Figure(figure) => nodes.push(Node::Figure(figure, scope)),
            }
        }
        nodes
    }

    /// Makes the members of every family.
    pub(super) fn expand(&mut self, nodes: &[Node], bindings: &[Binding]) {
        let here: Rc<[Binding]> = bindings.into();
        for node in nodes {
            match node {
                Node::Family(family) => {
                    if self.members.len() >= MOST_STEPS {
                        let span = self.families[*family].syntax.name.span;
                        self.report(
                            Diagnostic::error("E0121", span, format!("the program has more than {MOST_STEPS} steps"))
                                .label("while expanding this"),
                        );
                        return;
                    }
                    self.families[*family].members.push(self.members.len());
                    self.members.push(Member { family: *family, bindings: here.clone(), raw: None });
                }
                Node::Block { scope, nodes, .. } => {
                    if bindings.is_empty() && self.too_large(node) {
                        continue;
                    }
                    for binding in self.axis(node, *scope, bindings) {
                        if !self.tick(Span::default()) {
                            return;
                        }
                        let mut inner = bindings.to_vec();
                        inner.push(binding);
                        self.expand(nodes, &inner);
                    }
                }
                Node::Claim(..) | Node::Table(..) | Node::Figure(..) => {}
            }
        }
    }

    /// Whether a block would have more steps than anybody computes, which is told before any of them is made. Where an
    /// inner list depends on an outer value, the first one counts.
    fn too_large(&mut self, node: &Node) -> bool {
        let mut sizes = Vec::new();
        let steps = self.size(node, &[], &mut sizes);
        if steps <= MOST_STEPS as f64 {
            return false;
        }
        let Node::Block { axis, .. } = node else { return false };
        let shown = match steps.log10() {
            power if power >= 6.0 && power.fract() == 0.0 => format!("10^{power}"),
            power if power >= 15.0 => format!("more than 10^{}", power.floor()),
            _ => format!("{steps}"),
        };
        let product: Vec<String> = sizes.iter().map(|(name, size)| format!("{size} of `{name}`")).collect();
        let mut diagnostic = Diagnostic::error(
            "E0121",
            axis.span,
            format!("this sweep has {shown} steps, and {MOST_STEPS} are the most"),
        )
        .label("the outermost axis");
        if sizes.len() > 1 {
            diagnostic = diagnostic.note(product.join(" times "));
        }
        self.report(diagnostic);
        true
    }

    /// The number of steps of a node at the first place of every axis, and the sizes of the axes on the longest way.
    fn size(&mut self, node: &Node, bindings: &[Binding], sizes: &mut Vec<(String, usize)>) -> f64 {
        match node {
            Node::Family(_) => 1.0,
            Node::Block { scope, axis, nodes, .. } => {
                let told = self.diagnostics.len();
                let places = self.axis(node, *scope, bindings);
                self.diagnostics.truncate(told);
                let Some(first) = places.first() else { return 0.0 };
                let mut inner = bindings.to_vec();
                inner.push(first.clone());
                let (mut steps, mut longest) = (0.0, Vec::new());
                for node in nodes {
                    let mut own = Vec::new();
                    steps += self.size(node, &inner, &mut own);
                    if own.len() > longest.len() {
                        longest = own;
                    }
                }
                sizes.push((axis.text.clone(), places.len()));
                sizes.append(&mut longest);
                steps * places.len() as f64
            }
            Node::Claim(..) | Node::Table(..) | Node::Figure(..) => 0.0,
        }
    }

    /// A step from a family lies along that family's axes too: the copy of a family is a family.
    pub(super) fn spread(&mut self) {
        let based = |family: &Family| family.syntax.base.is_some();
        if !self.families.iter().any(based) {
            return;
        }
        let mut places: Vec<Vec<Vec<Binding>>> = self
            .families
            .iter()
            .map(|family| family.members.iter().map(|&member| self.members[member].bindings.to_vec()).collect())
            .collect();
        let mut done = vec![false; self.families.len()];
        for family in 0..self.families.len() {
            // From the family that begins the row; what starts from itself is told when its fields are looked at.
            let mut row = vec![family];
            while let Some(base) = row.last().and_then(|&last| self.base(last)) {
                if done[base] || row.contains(&base) || row.len() > DEEPEST {
                    break;
                }
                row.push(base);
            }
            for family in row.into_iter().rev() {
                if let Some(base) = self.base(family)
                    && !std::mem::replace(&mut done[family], true)
                {
                    let along = places[base].clone();
                    places[family] = self.along(family, &places[family], &along);
                }
            }
        }
        let total: usize = places.iter().map(Vec::len).sum();
        let axes = |places: &[Vec<Binding>]| places.iter().map(Vec::len).sum::<usize>();
        let before: usize = self.members.iter().map(|member| member.bindings.len()).sum();
        if total == self.members.len() && before == places.iter().map(|places| axes(places)).sum::<usize>() {
            return;
        }
        if total > MOST_STEPS {
            let span = self.families.iter().find(|family| based(family)).map(|family| family.syntax.name.span);
            let message = format!("the program has more than {MOST_STEPS} steps");
            self.report(
                Diagnostic::error("E0121", span.unwrap_or_default(), message)
                    .label(format!("{total} steps, with the copies of families")),
            );
            return;
        }
        // Numbered anew, each family's members where its first one was.
        let old = std::mem::take(&mut self.members);
        let mut placed = vec![false; self.families.len()];
        for member in old {
            let family = member.family;
            if self.families[family].syntax.base.is_none() {
                if !placed[family] {
                    self.families[family].members.clear();
                }
                self.families[family].members.push(self.members.len());
                self.members.push(member);
            } else if !placed[family] {
                let from = self.members.len();
                self.members.extend(places[family].drain(..).map(|bindings| Member {
                    family,
                    bindings: bindings.into(),
                    raw: None,
                }));
                self.families[family].members = (from..self.members.len()).collect();
            }
            placed[family] = true;
        }
    }

    /// The family that a family starts from.
    fn base(&self, family: usize) -> Option<usize> {
        self.names.get(&self.families[family].syntax.base.as_ref()?.text).copied()
    }

    /// The places of a family, spread along those axes of its base that it neither lies in nor indexes.
    fn along(&mut self, family: usize, places: &[Vec<Binding>], base: &[Vec<Binding>]) -> Vec<Vec<Binding>> {
        let (scope, index) = (self.families[family].scope, self.families[family].syntax.index.clone());
        let mut out = Vec::new();
        for own in places {
            // A wrong index is told when the fields are looked at.
            let told = self.diagnostics.len();
            let index = self.index(&index, scope, own).unwrap_or_default();
            self.diagnostics.truncate(told);
            let fits = |other: &Vec<Binding>| {
                let shared = |b: &Binding| own.iter().all(|o| o.axis != b.axis || o.label == b.label);
                other.iter().all(shared)
                    && index.iter().all(|place| {
                        let axis = |b: &Binding| place.axis.is_none() || place.names(&b.axis);
                        other.iter().any(|b| b.label == place.label && axis(b))
                    })
            };
            let named = |b: &Binding| {
                index.iter().any(|place| place.names(&b.axis) || place.axis.is_none() && place.label == b.label)
            };
            let mut seen: HashSet<Vec<String>> = HashSet::new();
            let before = out.len();
            for other in base.iter().filter(|other| fits(other)) {
                let new: Vec<Binding> =
                    other.iter().filter(|b| !own.iter().any(|o| o.axis == b.axis) && !named(b)).cloned().collect();
                if out.len() <= MOST_STEPS && seen.insert(new.iter().map(|b| b.label.clone()).collect()) {
                    out.push(own.iter().cloned().chain(new).collect());
                }
            }
            if out.len() == before {
                out.push(own.clone());
            }
        }
        out
    }

    /// Families that a `when` left without members. Where a list or a condition is wrong they have none either, which
    /// was said.
    pub(super) fn childless(&mut self) {
        if self.diagnostics.iter().any(|d| d.severity == Severity::Error) {
            return;
        }
        for family in 0..self.families.len() {
            if self.families[family].members.is_empty() {
                let name = &self.families[family].syntax.name;
                let (span, message) = (name.span, format!("`{}` has no members: `when` is never true", name.text));
                self.report(Diagnostic::error("E0114", span, message).label("nothing is left of it"));
            }
        }
    }

    /// The values of a block's axis.
    pub(super) fn axis(&mut self, node: &Node, scope: usize, bindings: &[Binding]) -> Vec<Binding> {
        let Node::Block { replicate, axis, list, when, .. } = node else { return Vec::new() };
        let names = self.scopes[scope].along.clone();
        let outer = self.scopes[scope].parent.unwrap_or(0);
        let value = self.evaluate(list, outer, bindings);
        let items = match value.kind {
            ValueKind::List(items) => items,
            ValueKind::Wrong => return Vec::new(),
            _ => {
                let help = match value.kind {
                    ValueKind::Range(0.0, high, true) => Some(format!(
                        "write `range({high})` for 0 to {}, or `range({})` for 0 to {high}",
                        high - 1.0,
                        high + 1.0
                    )),
                    ValueKind::Range(low, high, true) => Some(format!(
                        "write `range({low}, {high})` for {low} to {}, or `range({low}, {})` for {low} to {high}",
                        high - 1.0,
                        high + 1.0
                    )),
                    ValueKind::Int(number) if *replicate && number > 0 => {
                        Some(format!("write `range({number})` for {number} seeds"))
                    }
                    _ => None,
                };
                self.report(
                    Diagnostic::error("E0114", list.span, format!("an axis runs over a list, found {}", value.found()))
                        .label("expected a list such as `[1, 2, 3]`")
                        .help_if(help),
                );
                return Vec::new();
            }
        };
        if items.is_empty() {
            self.report(
                Diagnostic::error("E0114", list.span, format!("the axis `{}` has no values", axis.text))
                    .label("an empty list"),
            );
        }
        if let ExprKind::List(_) = &list.kind {
            // What a text of the program says alone; a param's list changes from run to run.
            let labels = items.iter().filter_map(|item| item.label(|family| self.family_name(family)));
            let labels: Vec<String> = labels.collect();
            let listed = self.listed.entry(axis.text.clone()).or_insert_with(|| (BTreeSet::new(), list.span));
            listed.0.extend(labels);
        } else {
            self.unlisted.insert(axis.text.clone());
        }
        let mut found: Vec<Binding> = Vec::new();
        let mut labels: HashSet<String> = HashSet::new();
        for item in items {
            if item.kind == ValueKind::Wrong {
                continue;
            }
            let mut along = Vec::new();
            let item = if names.is_empty() {
                item
            } else {
                match item.kind {
                    ValueKind::List(parts) if parts.len() == names.len() + 1 => {
                        let mut parts = parts.into_iter();
                        let Some(first) = parts.next() else { continue };
                        along = names.iter().cloned().zip(parts).collect();
                        first
                    }
                    kind => {
                        let found = match &kind {
                            ValueKind::List(parts) => format!("a list of {}", parts.len()),
                            _ => Value { kind, span: item.span }.found(),
                        };
                        let count = names.len() + 1;
                        self.report(
                            Diagnostic::error(
                                "E0114",
                                item.span,
                                format!("{count} names take a list of {count} for each place, found {found}"),
                            )
                            .label("cannot be taken apart")
                            .help("`for method, rate in zip(methods, rates)`"),
                        );
                        continue;
                    }
                }
            };
            if let ValueKind::Word(word) = &item.kind {
                let word = word.clone();
                self.unknown_name(&word, item.span);
                continue;
            }
            let Some(label) = item.label(|family| self.family_name(family)) else {
                self.report(
                    Diagnostic::error(
                        "E0114",
                        item.span,
                        format!("an axis has numbers, texts or steps as values, found {}", item.found()),
                    )
                    .label("cannot be a place on an axis"),
                );
                continue;
            };
            if *replicate && !matches!(item.kind, ValueKind::Int(seed) if seed >= 0) {
                self.report(
                    Diagnostic::error(
                        "E0114",
                        item.span,
                        format!("`replicate` runs over seeds, integers from 0, found {}", item.found()),
                    )
                    .label("not a seed")
                    .help("`for` runs over things to compare"),
                );
                continue;
            }
            if !labels.insert(label.clone()) {
                self.report(
                    Diagnostic::error("E0114", item.span, format!("`{label}` is twice on the axis `{}`", axis.text))
                        .label("once is enough"),
                );
                continue;
            }
            let binding = Binding { axis: axis.text.clone(), replicate: *replicate, label, value: item, along };
            if let Some(condition) = when {
                let mut inner = bindings.to_vec();
                inner.push(binding.clone());
                let keep = self.evaluate(condition, scope, &inner);
                match keep.kind {
                    ValueKind::Bool(true) => {}
                    ValueKind::Bool(false) | ValueKind::Wrong => continue,
                    _ => {
                        self.report(
                            Diagnostic::error(
                                "E0114",
                                condition.span,
                                format!("`when` takes true or false, found {}", keep.found()),
                            )
                            .label("not a condition"),
                        );
                        continue;
                    }
                }
            }
            found.push(binding);
        }
        found
    }
}

/// An override as a value of the default's type.
fn fit_param(default: &ValueKind, over: ValueKind, text: &str) -> Result<ValueKind, ValueKind> {
    use ValueKind as V;
    match (default, over) {
        (V::Wrong, over) => Ok(over),
        (V::Float(_), V::Int(number)) => Ok(V::Float(number as f64)),
        (V::Text(_), V::Text(text)) => Ok(V::Text(text)),
        (V::Text(_), _) => Ok(V::Text(text.into())),
        (default, over) if std::mem::discriminant(default) == std::mem::discriminant(&over) => Ok(over),
        (_, over) => Err(over),
    }
}
