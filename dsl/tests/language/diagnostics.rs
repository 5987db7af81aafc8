//! What people see of their mistakes, to the letter: each text beside what is shown of it.

use crate::catalog::{check_with, codes, shown};
use harness_dsl::{EXPLANATIONS, explain};

macro_rules! shows {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            let text = include_str!(concat!("mistakes/", stringify!($name), ".exp"));
            let expected = include_str!(concat!("mistakes/", stringify!($name), ".txt"));
            assert_eq!(shown(text), expected);
        }
    )*};
}

shows! { artifacts, brackets, fields, lexical, measured, names, not_yet }

#[test]
fn five_mistakes_give_five_diagnostics() {
    let text = "param epochs = = 3
        scenes world { train = , classes = 3 }
        pretrain moco { data = world, epochs = ] }
        for x on [1] { scenes s {} }
        table t { rows method }
        scenes right { classes = 3 }";
    assert_eq!(codes(text)[..5], ["E0010"; 5]);
}

#[test]
fn what_is_needed_is_named() {
    assert_eq!(codes("scenes w {}\nknn nn { test = w }"), ["E0105", "E0105"]);
    assert_eq!(codes("pretrain p from q {}"), ["E0105", "E0103"]);
    assert_eq!(codes("scenes w {}\nencoder e from w {}"), ["E0106"]);
    assert_eq!(codes("scenes w { train = 1, train = 2 }"), ["E0122"]);
    assert_eq!(codes("let a = b + 1\nlet b = a"), ["E0115"]);
    assert_eq!(codes("param a = a"), ["E0115"]);
    assert_eq!(codes("scenes a from b {}\nscenes b from a {}"), ["E0115"]);
    assert_eq!(codes("let w = 1\nscenes w {}"), ["E0102"]);
    assert_eq!(codes("scenes w {}\nlet w = 1"), ["E0102"]);
    assert_eq!(codes("scenes w {}\ntable t { rows = method, columns = [w.x] }"), ["E0119"]);
    assert_eq!(codes("claim \"c\" { 1 }"), ["E0120"]);
    assert_eq!(codes("let x = lenght([1])"), ["E0118"]);
}

#[test]
fn diagnostics_are_data_with_places() {
    let checked = check_with("scenes world {\n    trian = 5\n}", &[], &[]);
    let json = serde_json::to_value(&checked.diagnostics).unwrap();
    assert_eq!(json[0]["code"], "E0104");
    assert_eq!(json[0]["severity"], "error");
    assert_eq!((&json[0]["file"], &json[0]["line"], &json[0]["column"]), (&"test.exp".into(), &2.into(), &5.into()));
    assert_eq!(json[0]["help"][0], "did you mean `train`?");
}

#[test]
fn codes_are_explained() {
    assert_eq!(explain("e0104"), explain("E0104"));
    assert!(explain("E0104").is_some_and(|text| text.contains("field")));
    assert_eq!(explain("E9999"), None);
    assert!(EXPLANATIONS.iter().all(|(_, text)| text.len() > 40));
}
