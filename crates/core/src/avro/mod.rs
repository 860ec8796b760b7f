//! A relation and its catalog become a schema and the steps that write it.
