//! Axes that do something else than they seem to: nothing at all, or what the other sort of axis is for.

use super::{Checker, Node};
use crate::diagnostic::Diagnostic;
use crate::program::{Program, Step};
use crate::source::Span;
use crate::suggest::{list, nearest};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a field is called whose number is a draw or a part, and no setting to compare.
const DRAWS: [&str; 7] = ["seed", "fold", "split", "draw", "part", "shard", "run"];
/// Places that one diagnostic names at most.
const MOST_PLACES: usize = 3;

/// A `for` or `replicate` block with everything in it.
struct Block<'a> {
    axis: &'a str,
    at: Span,
    replicate: bool,
    /// The families in it, each with the innermost `replicate` axis around it.
    families: Vec<(usize, Option<(&'a str, Span)>)>,
}

/// What differs along an axis: the dotted name of the field, a step that has it, and whether it is a number.
type Differing<'a> = BTreeMap<String, (&'a Step, bool)>;

/// A family in a block, the innermost `replicate` axis around it, and its members: those together that differ in nothing
/// but the block's axis.
type Grouped<'a> = (usize, Option<(&'a str, Span)>, Vec<Vec<&'a Step>>);

impl Checker<'_> {
    /// Axes along which nothing changes, and those along which something else does than their sort is for.
    pub(super) fn idle_axes(&mut self, nodes: &[Node], program: &Program) {
        let mut blocks = Vec::new();
        collect(nodes, None, &mut blocks);
        if blocks.is_empty() {
            return;
        }
        // The first step that is the same as each, whatever is called what.
        let mut same: Vec<usize> = Vec::with_capacity(program.steps.len());
        let mut known: HashMap<String, usize> = HashMap::new();
        for step in &program.steps {
            let mut params = Json::Object(step.params.clone());
            follow(&mut params, &same);
            let choice = step.choice.as_ref().map(|choice| format!("{choice:?}")).unwrap_or_default();
            let text = format!("{} {choice} {params}", step.kind);
            same.push(*known.entry(text).or_insert(step.id));
        }
        let mut members: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
        for step in program.steps.iter().filter(|step| !step.implied) {
            members.entry(&step.name).or_default().push(step);
        }
        for block in blocks {
            let steps = |family: usize| members.get(self.families[family].syntax.name.text.as_str());
            let mut families: Vec<Grouped<'_>> = Vec::new();
            for (family, innermost) in &block.families {
                let mut groups: BTreeMap<Vec<(&str, &str)>, Vec<&Step>> = BTreeMap::new();
                for step in steps(*family).into_iter().flatten() {
                    let others = step.axes.iter().filter(|other| other.name != block.axis);
                    groups.entry(others.map(|o| (&*o.name, &*o.value)).collect()).or_default().push(step);
                }
                families.push((*family, *innermost, groups.into_values().collect()));
            }
            let idle = |groups: &[Vec<&Step>]| {
                !groups.is_empty()
                    && groups.iter().all(|g| g.len() > 1 && g.iter().all(|step| same[step.id] == same[g[0].id]))
            };
            let still: Vec<usize> = families.iter().filter(|(.., groups)| idle(groups)).map(|(f, ..)| *f).collect();
            if block.replicate {
                let all = !still.is_empty() && still.len() == families.len();
                self.idle_replicate(&block, &families, &still, all);
                self.settings_replicated(&block, &families);
            } else if !still.is_empty() && still.len() == families.len() {
                self.idle_for(&block, &families);
            } else {
                self.seeds_compared(&block, &families);
            }
        }
    }

    /// Replicates that are all the same.
    fn idle_replicate(&mut self, block: &Block<'_>, families: &[Grouped<'_>], still: &[usize], all: bool) {
        let axis = block.axis;
        let outer = families.iter().find(|(_, innermost, _)| innermost.is_some_and(|(inner, _)| inner != axis));
        if let Some((_, Some((inner, at)), _)) = outer {
            // Steps beside an inner block may well be the same for all; that nothing at all changes is a mistake.
            if all {
                let message = format!("nothing changes along `{axis}`: seeds are those of `{inner}`");
                self.report(
                    Diagnostic::warning("W0202", block.at, message)
                        .label("changes nothing in this block")
                        .related(*at, "the innermost `replicate` gives the seeds")
                        .note(format!("each `{axis}` has the very results of the others, which count once"))
                        .help(format!("write one `replicate` over all seeds, or use `{axis}` in a step of the block")),
                );
            }
            return;
        }
        let same = || families.iter().filter(|(family, ..)| still.contains(family));
        let ids: HashSet<usize> = same().flat_map(|(.., groups)| groups.iter().flatten().map(|step| step.id)).collect();
        for (family, _, groups) in same() {
            // What takes something that is the same is the same because of that, which is said there.
            let own: Vec<usize> = groups.iter().flatten().map(|step| step.id).collect();
            let takes_same = groups.iter().flatten().flat_map(|step| &step.inputs);
            let takes_same = takes_same.into_iter().any(|input| ids.contains(input) && !own.contains(input));
            if takes_same {
                continue;
            }
            let name = self.family_name(*family);
            let random = self.kind_of(*family).is_some_and(|kind| kind.random);
            let seed = groups[0][0].field_spans.get("seed").copied().filter(|_| random);
            let span = self.families[*family].syntax.name.span;
            let message = format!("the replicates of `{name}` are all the same");
            let diagnostic = Diagnostic::warning("W0202", seed.unwrap_or(span), message);
            let diagnostic = match seed {
                Some(_) => diagnostic
                    .label("the same seed for all of them")
                    .related(block.at, format!("replicated along `{axis}` here"))
                    .help(format!("leave `seed` out: inside `replicate {axis}` each member gets its own")),
                None => diagnostic
                    .label("nothing in it is random, nor in what it takes")
                    .related(block.at, format!("replicated along `{axis}` here"))
                    .help("put it outside the block: it is computed once anyway, and counts as one measurement"),
            };
            self.report(diagnostic);
        }
    }

    /// A `for` whose axis nothing in its block depends on.
    fn idle_for(&mut self, block: &Block<'_>, families: &[Grouped<'_>]) {
        let axis = block.axis;
        if self.literal.iter().any(|(name, _)| name == axis) {
            // It was meant in a text, where it stands for nothing: that is said.
            return;
        }
        let steps = || families.iter().flat_map(|(.., groups)| groups.iter().flatten());
        // A field of the axis' name is what was meant to vary.
        let field = steps().find_map(|step| {
            let last = |path: &String| path.rsplit('.').next() == Some(axis);
            step.field_spans.iter().find(|(path, _)| last(path)).map(|(_, at)| *at)
        });
        let name = self.family_name(families[0].0);
        let what = if families.len() == 1 { format!("of `{name}` are") } else { "of this block are".to_owned() };
        let mut diagnostic =
            Diagnostic::warning("W0205", block.at, format!("the members {what} the same for every `{axis}`"))
                .label("changes nothing in the block");
        diagnostic = match field {
            Some(at) => diagnostic.related(at, "the same for all").help(format!("write `{axis} = {axis}` there")),
            None => diagnostic.help(format!("use `{axis}` in a step of the block, or drop the block")),
        };
        self.report(diagnostic.note("equal members are computed once, and rows of a table would be equal"));
    }

    /// A `replicate` whose values are settings: they would be averaged as if they were repetitions.
    fn settings_replicated(&mut self, block: &Block<'_>, families: &[Grouped<'_>]) {
        let axis = block.axis;
        let mut places: Vec<(String, Span)> = Vec::new();
        for (family, _, groups) in families {
            // What a program of one's own takes means what it means there.
            if self.kind_of(*family).is_none_or(|kind| kind.dynamic_metrics) {
                continue;
            }
            for (path, (step, _)) in differing(groups).into_iter().filter(|(_, (_, number))| *number) {
                let name = path.rsplit('.').next().unwrap_or(&path);
                if !DRAWS.iter().any(|draw| name.contains(draw)) {
                    places.push((name.to_owned(), step.field_spans.get(&path).copied().unwrap_or(step.span)));
                }
            }
        }
        let Some((name, _)) = places.first().cloned() else { return };
        let mut diagnostic =
            Diagnostic::warning("W0206", block.at, format!("the replicates along `{axis}` differ in `{name}`"))
                .label("settings to compare, no seeds");
        for (_, at) in places.iter().take(MOST_PLACES) {
            diagnostic = diagnostic.related(*at, format!("set by `{axis}`"));
        }
        self.report(
            diagnostic
                .note("replicates are repetitions: they are averaged, and their spread decides claims")
                .help(format!("compare settings with `for {axis} in …`, and repeat each with `replicate` inside")),
        );
    }

    /// A `for` whose values are seeds and nothing else: no mean, no interval.
    fn seeds_compared(&mut self, block: &Block<'_>, families: &[Grouped<'_>]) {
        let mut place = None;
        for (family, _, groups) in families {
            for (path, (step, _)) in differing(groups) {
                if path != "seed" || !self.kind_of(*family).is_some_and(|kind| kind.random) {
                    return;
                }
                place = place.or_else(|| step.field_spans.get(&path).copied());
            }
        }
        let Some(place) = place else { return };
        let axis = block.axis;
        self.report(
            Diagnostic::warning("W0207", block.at, format!("the members along `{axis}` differ in their seed alone"))
                .label("compared one by one")
                .related(place, "nothing else differs")
                .note("`for` compares: tables show each seed for itself, and claims have neither n nor interval")
                .help(format!("write `replicate {axis} in …`, which sets the seed of every random step by itself")),
        );
    }

    /// Comparisons of an axis with a text that is not on it.
    pub(super) fn off_the_axis(&mut self) {
        let compared = std::mem::take(&mut self.compared);
        for (axis, text, at) in compared {
            let Some((labels, place)) = self.listed.get(&axis).cloned() else { continue };
            if labels.contains(&text) || self.unlisted.contains(&axis) {
                continue;
            }
            let known: Vec<&str> = labels.iter().map(String::as_str).collect();
            let help = nearest(&text, known.iter().copied())
                .map(|name| format!("did you mean \"{name}\"?"))
                .or_else(|| list(&known).map(|all| format!("there is {all}")));
            self.report(
                Diagnostic::warning("W0210", at, format!("`{axis}` is never \"{text}\""))
                    .label("not a value of the axis")
                    .related(place, format!("the values of `{axis}`"))
                    .help_if(help),
            );
        }
    }
}

/// What differs along an axis, within any group of members that differ in nothing else; references aside.
fn differing<'a>(groups: &[Vec<&'a Step>]) -> Differing<'a> {
    let mut found = BTreeMap::new();
    for group in groups {
        let Some((first, others)) = group.split_first() else { continue };
        for other in others {
            for (name, value) in &first.params {
                let mut differs = |path: String, number: bool| {
                    found.entry(path).or_insert((*other, number));
                };
                match other.params.get(name) {
                    Some(there) => compare(value, there, name.clone(), &mut differs),
                    None => differs(name.clone(), false),
                }
            }
        }
    }
    found
}

/// Says where two values differ, and whether both are numbers there.
fn compare(a: &Json, b: &Json, path: String, differs: &mut impl FnMut(String, bool)) {
    match (a, b) {
        (Json::Object(a), Json::Object(b)) if a.contains_key("$ref") && b.contains_key("$ref") => {}
        (Json::Object(a), Json::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().zip(b.values()).for_each(|((name, a), b)| compare(a, b, format!("{path}.{name}"), differs));
        }
        // A list is set as a whole.
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| compare(a, b, path.clone(), differs));
        }
        _ if a == b => {}
        _ => differs(path, a.is_number() && b.is_number()),
    }
}

/// Puts the first of equal steps in the place of each.
fn follow(value: &mut Json, same: &[usize]) {
    match value {
        Json::Object(map) => {
            if let Some(step) = map.get_mut("$ref").and_then(|reference| reference.get_mut("step"))
                && let Some(&first) = step.as_u64().and_then(|id| same.get(id as usize))
            {
                *step = first.into();
                return;
            }
            map.values_mut().for_each(|inner| follow(inner, same));
        }
        Json::Array(items) => items.iter_mut().for_each(|inner| follow(inner, same)),
        _ => {}
    }
}

/// The blocks with the families inside.
fn collect<'a>(nodes: &'a [Node], replicate: Option<(&'a str, Span)>, into: &mut Vec<Block<'a>>) {
    for node in nodes {
        if let Node::Block { replicate: own, axis, nodes, .. } = node {
            let around = if *own { Some((axis.text.as_str(), axis.span)) } else { replicate };
            let mut families = Vec::new();
            inside(nodes, around, &mut families);
            into.push(Block { axis: &axis.text, at: axis.span, replicate: *own, families });
            collect(nodes, around, into);
        }
    }
}

fn inside<'a>(nodes: &'a [Node], replicate: Option<(&'a str, Span)>, into: &mut Vec<(usize, Option<(&'a str, Span)>)>) {
    for node in nodes {
        match node {
            Node::Family(family) => into.push((*family, replicate)),
            Node::Block { replicate: own, axis, nodes, .. } => {
                inside(nodes, if *own { Some((&axis.text, axis.span)) } else { replicate }, into);
            }
            Node::Claim(..) | Node::Table(..) | Node::Figure(..) => {}
        }
    }
}
