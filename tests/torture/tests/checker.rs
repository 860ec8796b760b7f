//! The checker finds each kind of violation in logs that are made up, and none in good ones.

mod checker {
    mod good;
    mod joined;
    pub(crate) mod logs;
    mod violations;
}
