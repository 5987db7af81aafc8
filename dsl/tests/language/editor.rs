//! What an editor asks: names, hover, completion, tokens, edits that mend.

use crate::catalog::{catalog, check_with};
use harness_dsl::Sources;
use harness_dsl::ide::{CompletionKind, DeclarationKind, Names, Page, TokenKind};

const STUDY: &str = include_str!("study.exp");

fn names(text: &str) -> Names {
    let mut sources = Sources::default();
    sources.add("test.exp", text);
    Names::of(&sources)
}

/// A text with a cursor at `|`.
fn cursor(text: &str) -> (String, usize) {
    let at = text.find('|').expect("the text has a cursor");
    (text.replacen('|', "", 1), at)
}

fn hover(text: &str) -> Option<String> {
    let (text, at) = cursor(text);
    Page::new(&*text).hover(at, &names(&text), 0, &catalog()).map(|(markdown, ..)| markdown)
}

fn labels(text: &str) -> Vec<String> {
    let (text, at) = cursor(text);
    let (items, ..) = Page::new(&*text).complete(at, &names(&text), 0, &catalog());
    items.into_iter().map(|item| item.label).collect()
}

#[test]
fn declarations_are_found() {
    let names = names(STUDY);
    let found: Vec<&str> = names.declarations(0).map(|declared| declared.name.as_str()).collect();
    let steps = ["world", "moco", "crops", "untrained", "nn", "video"];
    for name in ["epochs", "seeds", "seed", "method", "transfer", "multi-crop beats two crops"].iter().chain(&steps) {
        assert!(found.contains(name), "{name} is not among {found:?}");
    }
    let crops = names.declarations(0).find(|declared| declared.name == "crops").unwrap();
    assert_eq!(crops.kind, DeclarationKind::Step { kind: "pretrain".into(), base: Some("moco".into()) });
    let epochs = names.declarations(0).find(|declared| declared.name == "epochs").unwrap();
    assert_eq!(epochs.value, "200");
}

#[test]
fn uses_lead_to_their_declaration_and_back() {
    let text = "param size = 4\nscenes world { classes = size }\nfor size in [1] { scenes small { classes = size } }\n";
    let (names, page) = (names(text), Page::new(text));
    let param = names.at(&page, text.find("size").unwrap()).unwrap();
    assert_eq!(param.kind, DeclarationKind::Param);
    let spans: Vec<&str> = names.places(&page, param).iter().map(|span| &text[span.start - 2..span.end]).collect();
    assert_eq!(spans, ["m size", "= size"]);
    // Inside the block the axis hides the param.
    let axis = names.at(&page, text.rfind("size").unwrap()).unwrap();
    assert_eq!(axis.kind, DeclarationKind::Axis { replicate: false });
    assert_eq!(names.places(&page, axis).len(), 2);
    // Tables, figures and claims name it from outside the block.
    let text = "for size in [1] { scenes w { classes = size } }\ntable t { rows = size, columns = [w[size = 1].n] }\n";
    let (names, page) = (self::names(text), Page::new(text));
    let axis = names.at(&page, text.rfind("size").unwrap()).unwrap();
    assert_eq!((&axis.kind, names.places(&page, axis).len()), (&DeclarationKind::Axis { replicate: false }, 4));
    // Of two axes of that name none is meant more than the other.
    let twice = format!("{text}for size in [2] {{ scenes v {{ classes = size }} }}\n");
    let (names, page) = (self::names(&twice), Page::new(&*twice));
    assert_eq!(names.at(&page, text.rfind("size").unwrap()), None);
    // Steps are used as bases, as inputs, in tables and in claims; fields and tags of the same name are no use.
    let study = self::names(STUDY);
    let moco = study.declarations(0).find(|declared| declared.name == "moco").unwrap();
    let places = study.places(&Page::new(STUDY), moco);
    assert!(places.len() >= 6, "{places:?}");
    assert!(places.iter().all(|span| &STUDY[span.start..span.end] == "moco"));
    let tag = STUDY.find("= moco {").unwrap() + 2;
    assert!(places.iter().all(|span| span.start != tag), "the tag is taken for the step");
}

#[test]
fn hover_tells_what_it_is() {
    let kind = hover("kn|n nn { k = 3 }").unwrap();
    assert!(kind.contains("**knn**") && kind.contains("`encoder`"), "{kind}");
    let field = hover("pretrain moco { epo|chs = 3 }").unwrap();
    assert!(field.contains("`epochs`: an integer"), "{field}");
    let nested = hover("pretrain moco { contrast = moco { momen|tum = 0.9 } }").unwrap();
    assert!(nested.contains("`momentum`"), "{nested}");
    let dotted = hover("pretrain b from a { views = two_crops { si|ze = 3 } }").unwrap();
    assert!(dotted.contains("`size`"), "{dotted}");
    let param = hover("param epochs = 200 # many\npretrain moco { epochs = epo|chs }").unwrap();
    assert!(param.contains("param epochs = 200\n"), "{param}");
    let step = hover("scenes world {}\nknn nn { train = wor|ld.train }").unwrap();
    assert!(step.contains("scenes world") && step.contains("`train`"), "{step}");
    let metric = hover("knn nn {}\nclaim \"c\" { nn[a].to|p1 > 3 }").unwrap();
    assert!(metric.contains("`top1` of `nn`"), "{metric}");
    assert_eq!(hover("scenes world { # wor|ld\n }"), None);
}

#[test]
fn completion_fits_the_place() {
    assert!(labels("pre|").contains(&"pretrain".to_owned()));
    assert!(labels("for a in [1] {\n    |\n}").contains(&"replicate".to_owned()));
    let fields = labels("knn nn { encoder = e, |");
    assert!(fields.contains(&"train".to_owned()) && !fields.contains(&"encoder".to_owned()), "{fields:?}");
    let fields = labels("pretrain moco {\n    epochs = 3\n    contrast = moco { mom| }\n}");
    assert!(fields.contains(&"momentum".to_owned()) && !fields.contains(&"epochs".to_owned()), "{fields:?}");
    let values = labels("scenes world {}\npretrain moco { schedule = |");
    assert!(values.contains(&"cosine".to_owned()), "{values:?}");
    let (text, at) = cursor("scenes world {}\nencoder net {}\nknn nn { encoder = |");
    let (items, ..) = Page::new(&*text).complete(at, &names(&text), 0, &catalog());
    let net = items.iter().find(|item| item.label == "net").unwrap();
    let world = items.iter().find(|item| item.label == "world").unwrap();
    assert!(net.first && !world.first && net.kind == CompletionKind::Step);
    assert!(labels("scenes world {}\nknn nn { train = world.|").contains(&"holdout".to_owned()));
    assert!(labels("knn nn {}\nclaim \"c\" { nn.|").contains(&"top1".to_owned()));
    assert_eq!(labels("scenes world { # tr|"), Vec::<String>::new());
    assert!(labels("for a in [1] { knn nn {} }\ntable t { rows = |").contains(&"a".to_owned()));
    assert_eq!(labels("table t { |"), ["rows", "columns", "against"]);
}

#[test]
fn paths_are_known_where_one_is_written() {
    let catalog = catalog();
    let place = |text: &str| {
        let (text, at) = cursor(text);
        let page = Page::new(&*text);
        page.path(at, &catalog).map(|place| (place, page))
    };
    // What stands there after `name` was chosen.
    let chosen = |text: &str, name: &str, folder: bool| {
        let (place, page) = place(text)?;
        let (new, start) = place.write(name, folder, &page);
        Some(format!("{}{new}{}", &page.text()[..start], &page.text()[place.end..]))
    };
    let (found, _) = place("image_folder p { path = \"pictures/old ones/ja|x\" }").unwrap();
    assert_eq!((found.folder.as_str(), found.typed.as_str(), &found.root), ("pictures/old ones/", "ja", &None));
    let one = |text: &str, name: &str, folder: bool| chosen(text, name, folder).unwrap_or_default();
    assert_eq!(one("image_folder p { path = \"a/ja|x/b\" }", "jay", true), "image_folder p { path = \"a/jay/b\" }");
    assert_eq!(one("image_folder p { path = \"|\" }", "a \"b\"", true), r#"image_folder p { path = "a \"b\"/" }"#);
    // A quote that is still missing is written behind a file, not behind a folder.
    assert_eq!(one("image_folder p { path = \"a/|", "b.tar", false), "image_folder p { path = \"a/b.tar\"");
    assert_eq!(one("image_folder p { path = \"a/|", "b", true), "image_folder p { path = \"a/b/");
    assert_eq!(one("import \"ba|\"", "base.exp", false), "import \"base.exp\"");
    assert!(place("import \"|\"").unwrap().0.import);
    // Roots, and what is below them.
    let (found, _) = place("image_folder p { path = @co| }").unwrap();
    assert!(found.names_root && found.typed == "co");
    assert_eq!(one("image_folder p { path = @co| }", "coco", true), "image_folder p { path = @coco/ }");
    let (found, _) = place("image_folder p { path = @coco/train/x| }").unwrap();
    assert_eq!((found.root.as_deref(), found.folder.as_str(), found.typed.as_str()), (Some("coco"), "train/", "x"));
    let bare = "image_folder p { path = @coco/train/x| }";
    assert_eq!(one(bare, "x y", true), "image_folder p { path = @\"coco/train/x y/\" }");
    assert_eq!(one(bare, "xy", false), "image_folder p { path = @coco/train/xy }");
    assert!(place("image_folder p { path = @| }").unwrap().0.names_root);
    // Nowhere else: other texts, outside the quotes, comments.
    for text in [
        "image_folder p { path = |\"a\" }",
        "image_folder p { path = \"a\"| }",
        "image_folder p { path = \"a\" # \"b|\"\n }",
        "claim \"a|\" { nn.top1 > 3 }",
        "param p = \"a|\"",
        "image_folder p { labels = \"a|\" }",
        "pretrain moco { data = w[\"a|\"] }",
    ] {
        assert_eq!(place(text).map(|(place, _)| place), None, "{text}");
    }
}

#[test]
fn tokens_cover_the_text_in_order() {
    let tokens = Page::new(STUDY).semantic_tokens();
    assert!(tokens.windows(2).all(|pair| pair[0].end <= pair[1].start));
    let kinds = |word: &str| -> Vec<TokenKind> {
        tokens.iter().filter(|token| &STUDY[token.start..token.end] == word).map(|token| token.kind).collect()
    };
    assert!(kinds("replicate").iter().all(|kind| *kind == TokenKind::Keyword));
    assert!(kinds("pretrain").iter().all(|kind| *kind == TokenKind::Kind));
    assert!(kinds("batch").iter().all(|kind| *kind == TokenKind::Field));
    assert!(kinds("65_536").iter().all(|kind| *kind == TokenKind::Number));
    assert_eq!(tokens[0].kind, TokenKind::Comment);
}

#[test]
fn misspelt_names_and_numbers_can_be_mended() {
    let fixed = |text: &str| {
        let found = check_with(text, &[], &[]).diagnostics;
        let fix = found.iter().find_map(|diagnostic| diagnostic.fix()).expect("a fix");
        format!("{}{}{}", &text[..fix.span.start], fix.text, &text[fix.span.end..])
    };
    assert_eq!(fixed("scenes world { clases = 3 }"), "scenes world { classes = 3 }");
    assert_eq!(fixed("param lr = .3"), "param lr = 0.3");
    assert_eq!(fixed("param lr = 3. + 1"), "param lr = 3.0 + 1");
}

#[test]
fn places_count_lines_and_utf16() {
    let text = "a\né😀b\n";
    let page = Page::new(text);
    for at in text.char_indices().map(|(at, _)| at).chain([text.len()]) {
        let (line, column) = page.position(at);
        assert_eq!(page.offset(line, column), at);
    }
    assert_eq!(page.position(text.find('b').unwrap()), (1, 3));
    assert_eq!(page.offset(9, 9), text.len());
    assert_eq!(page.offset(0, 99), 1);
}

#[test]
fn names_of_a_page_are_those_of_all_texts() {
    // While an import is as it was, only the page is read anew.
    let mut sources = Sources::default();
    sources.add("test.exp", "scenes w { classes = size }\n");
    sources.add("base.exp", "param size = 4\nscenes other { classes = size }\n");
    let before = Names::of(&sources);
    let typed = "scenes w { train = 3, classes = size }\n";
    let page = Page::new(typed);
    let names = before.with_page(&page);
    let declared = names.at(&page, typed.find("size").unwrap()).unwrap();
    assert_eq!((declared.span.source, declared.name.as_str()), (1, "size"));
    assert_eq!(names.places(&page, declared).len(), 3);
    let visible: Vec<&str> = names.visible(0, typed.len()).iter().map(|declared| declared.name.as_str()).collect();
    assert_eq!(visible, ["w", "size", "other"]);
}

#[test]
fn an_edited_page_is_the_page_of_the_edited_text() {
    let pieces =
        ["\n", "\r\n", "\"", "{", "é", "\u{feff}", "# ", "x", "1.", "e5", "", " = ", "\n\n  a", "@r/x", "😀", "\\"];
    let mut random = fastrand::Rng::with_seed(7);
    for begin in [STUDY, "", "\n", "\u{feff}a\nb", "a"] {
        let mut page = Page::new(begin);
        for _ in 0..400 {
            let text = page.text().to_owned();
            let place = |random: &mut fastrand::Rng| {
                let at = random.usize(..=text.len());
                (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
            };
            let start = place(&mut random);
            let end = if random.bool() { start } else { place(&mut random).clamp(start, text.len().min(start + 60)) };
            let end = (start..=end).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(start);
            let new: String = (0..random.usize(..4)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            page = page.edited(start, end, &new);
            let whole = Page::new(page.text());
            assert_eq!(page, whole, "{:?} for {start}..{end} of {text:?}", new);
            assert_eq!(Page::new(&*text).replaced(page.text()), whole, "{text:?}");
        }
    }
}

#[test]
fn any_text_is_served() {
    // Every cut of the study, as it is while it is typed.
    let catalog = catalog();
    for at in (0..STUDY.len()).step_by(7).filter(|&at| STUDY.is_char_boundary(at)) {
        let text = &STUDY[..at];
        let names = names(text);
        let page = Page::new(text);
        page.hover(at, &names, 0, &catalog);
        page.complete(at, &names, 0, &catalog);
        page.semantic_tokens();
        let (line, column) = page.position(at);
        assert_eq!(page.offset(line, column), at);
        if let Some(declared) = names.at(&page, at) {
            names.places(&page, declared);
        }
    }
}
