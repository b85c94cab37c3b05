//! Values of settings as text: conversions for serde's `try_from` and `into`.

use std::fmt;

/// Implements the conversions of a type by its `FromStr` and `Display`: from and into `String`.
#[macro_export]
macro_rules! as_text {
    ($type:ty, $error:ty) => {
        impl TryFrom<String> for $type {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

/// Implements the conversions of a type whose values are words: from `String` and into `&str`.
#[macro_export]
macro_rules! as_word {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl TryFrom<String> for $type {
            type Error = $crate::setting::UnknownWord;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                match &*text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::setting::UnknownWord { text, known: &[$($word),+] }),
                }
            }
        }

        impl From<$type> for &'static str {
            fn from(value: $type) -> Self {
                match value {
                    $($type::$variant => $word,)+
                }
            }
        }
    };
}

/// The text is not one of the words of a setting.
#[derive(Debug)]
pub struct UnknownWord {
    /// The text.
    pub text: String,
    /// The words.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        match self.known {
            [one, other] => write!(f, "{text:?} is neither {one} nor {other}"),
            [first @ .., last] => {
                write!(f, "{text:?} is not one of {} and {last}", first.join(", "))
            }
            [] => write!(f, "{text:?} is not known"),
        }
    }
}

impl std::error::Error for UnknownWord {}

#[cfg(test)]
mod tests {
    #[derive(Debug, PartialEq)]
    enum Rule {
        None,
        Listed,
        All,
    }

    as_word!(Rule { None = "none", Listed = "listed", All = "all" });

    #[test]
    fn a_word_reads_as_it_is_written_and_an_error_names_all_words() {
        for (word, rule) in [("none", Rule::None), ("listed", Rule::Listed), ("all", Rule::All)] {
            assert_eq!(Rule::try_from(word.to_owned()).ok().as_ref(), Some(&rule));
            assert_eq!(<&str>::from(rule), word);
        }
        let error = Rule::try_from("any".to_owned()).expect_err("it is another word");
        assert_eq!(error.to_string(), "\"any\" is not one of none, listed and all");
    }
}
