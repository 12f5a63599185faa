//! Everything that `--mig-share` must refuse.

use migshare_spank::option::{parse, parse_inherited};

const BAD: &[(&str, &str)] = &[
    ("", "an empty word"),
    (",", "an empty word"),
    ("3,", "an empty word"),
    (",3", "an empty word"),
    ("3,,pack", "an empty word"),
    ("0", "0 leaves are out of range"),
    ("00", "00 leaves are out of range"),
    ("225", "225 leaves are out of range"),
    ("4294967297", "4294967297 leaves are out of range"),
    ("99999999999999999999999999", "out of range"),
    ("-1", "\"-1\" is not known"),
    ("+1", "\"+1\" is not known"),
    ("1.5", "\"1.5\" is not known"),
    ("0x3", "\"0x3\" is not known"),
    ("3k", "\"3k\" is not known"),
    (" 3", "\" 3\" is not known"),
    ("3 ", "\"3 \" is not known"),
    ("3 pack", "\"3 pack\" is not known"),
    ("3;pack", "\"3;pack\" is not known"),
    ("\u{663}", "is not known"),
    ("3,4", "more than one number"),
    ("3,3", "more than one number"),
    ("pack,pack", "exclude each other"),
    ("pack,spread", "exclude each other"),
    ("spread,3,pack", "exclude each other"),
    ("Pack", "\"Pack\" is not known"),
    ("packed", "\"packed\" is not known"),
    ("pack=3", "\"pack=3\" is not known"),
    ("mig:3", "\"mig:3\" is not known"),
    ("(null)", "\"(null)\" is not known"),
    ("none", "\"none\" is not known"),
    ("3\n", "\"3\\n\" is not known"),
    ("\u{1b}[31m", "\"\\u{1b}[31m\" is not known"),
    ("segment", "segment without a size"),
    ("segment=", "\"\" is no size"),
    ("segment=0", "\"0\" is no size"),
    ("segment=1.5G", "\"1.5G\" is no size"),
    ("segment=-1M", "\"-1M\" is no size"),
    ("segment=512MB", "\"512MB\" is no size"),
    ("segment=99999999999T", "is no size"),
    ("segment=Off", "\"Off\" is no size"),
    ("segment=1G,segment=1G", "segment is given once"),
    ("segment=off,4,segment=1G", "segment is given once"),
    ("size", "size without a number of slices"),
    ("size=", "\"\" is no number of slices"),
    ("size=2", "\"2\" is no number of slices"),
    ("size=0g", "\"0g\" is no number of slices"),
    ("size=9g", "\"9g\" is no number of slices"),
    ("size=12g", "\"12g\" is no number of slices"),
    ("size=2G", "\"2G\" is no number of slices"),
    ("size=2g.20gb", "\"2g.20gb\" is no number of slices"),
    ("mem", "mem without a size"),
    ("mem=", "\"\" is no size"),
    ("mem=0", "\"0\" is no size"),
    ("mem=30GB", "\"30GB\" is no size"),
    ("size=2g,size=2g", "size and mem exclude each other"),
    ("mem=30G,size=2g", "size and mem exclude each other"),
    ("segments=1G", "\"segments=1G\" is not known"),
    ("%n", "\"%n\" is not known"),
];

#[test]
fn bad_text_is_refused_with_the_option_the_fault_and_what_is_allowed() {
    for (text, fault) in BAD {
        let said = parse(Some(text)).expect_err(text).to_string();
        assert!(said.starts_with("--mig-share="), "{said}");
        assert!(said.contains(fault), "{text:?}: {said}");
        assert!(
            said.contains("1 to 224") && said.contains("pack, spread") && said.contains("segment=SIZE"),
            "{said}"
        );
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }
}

#[test]
fn inherited_text_is_as_strict_but_for_the_bare_option() {
    for (text, _) in BAD.iter().filter(|(t, _)| !matches!(*t, "" | "(null)")) {
        parse_inherited(Some(text)).expect_err(text);
    }
}
