//! A column's bytes become its value, one file for each family of types.
