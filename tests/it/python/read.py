"""Prints all records of a topic, one line of JSON each, as Confluent's own deserialiser reads them.

    read.py BOOTSTRAP REGISTRY TOPIC [VERSION]

With a version, values are read as a consumer does that knows this version of the schema and no
other.

What JSON has no form for is an object of one member: {"Decimal": "1.50"}, {"datetime": "..."}.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext


def plain(value):
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return {type(value).__name__: value.isoformat() if hasattr(value, "isoformat") else str(value)}


def records(bootstrap, registry, topic, version=None):
    client = SchemaRegistryClient({"url": registry})
    read = read_value = AvroDeserializer(client)
    if version:
        known = client.get_version(f"{topic}-value", int(version)).schema.schema_str
        read_value = AvroDeserializer(client, known)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reads-all"})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    for number in partitions:
        partition = TopicPartition(topic, number, 0)
        _, end = consumer.get_watermark_offsets(partition, timeout=30)
        consumer.assign([partition])
        for _ in range(end):
            message = consumer.poll(30)
            if message is None:
                raise SystemExit(f"{topic}: no record within 30 s, and {end} there should be")
            if message.error():
                raise SystemExit(str(message.error()))
            yield {
                "key": read(message.key(), SerializationContext(topic, MessageField.KEY)),
                "value": read_value(message.value(), SerializationContext(topic, MessageField.VALUE)),
                "headers": {name: value.decode() for name, value in message.headers()},
            }
    consumer.close()


for record in records(*sys.argv[1:]):
    print(json.dumps(record, default=plain))
