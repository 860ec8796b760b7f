use waltide_stack::Stack;
use waltide_stack::serde_json::json;

#[test]
fn a_schema_gets_an_id_and_comes_back_under_it() {
    let registry = Stack::shared().registry();
    let schema = json!({"type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}]});
    let id = registry.register("comes-back-value", &schema);
    assert_eq!(registry.schema(id), schema);
    assert_eq!(registry.latest("comes-back-value"), Some(schema));
    assert!(registry.subjects().contains(&"comes-back-value".to_owned()));
}
