#!/usr/bin/python3
# rabbitmq_read.py: takes all messages out of a queue and prints them, one JSON object a line.
#     rabbitmq_read.py HOST:PORT QUEUE [stream] [brief]
# It knows that it has all when it sees a message that it has put there itself.  Messages are taken out,
# but for a stream's, which stay.  brief prints only key, version, message-id, position and aggregate type,
# with tabs between them.
import json
import sys
import uuid

import pika

host, port = sys.argv[1].split(":")
queue = sys.argv[2]
stream, brief = ("stream" in sys.argv[3:]), ("brief" in sys.argv[3:])
connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port), socket_timeout=30))
channel = connection.channel()
channel.confirm_delivery()
marker = str(uuid.uuid4())
channel.basic_publish("", queue, b"", pika.BasicProperties(message_id=marker, app_id="reader"), mandatory=True)
channel.basic_qos(prefetch_count=500)


def plain(value):
    return value.decode() if isinstance(value, bytes) else value


last = None
arguments = {"x-stream-offset": "first"} if stream else None
for method, properties, body in channel.consume(queue, arguments=arguments, inactivity_timeout=60):
    if method is None:
        sys.exit("the marker does not come")
    last = method.delivery_tag
    if stream and last % 200 == 0:
        channel.basic_ack(last, multiple=True)
    if properties.message_id == marker:
        break
    if properties.app_id == "reader":
        continue
    if brief:
        print(*[plain(properties.headers[name]) for name in ("key", "version")], properties.message_id,
              *[plain(properties.headers[name]) for name in ("position", "aggregate-type")], sep="\t")
    else:
        print(json.dumps({
            "exchange": method.exchange, "routing_key": method.routing_key, "message_id": properties.message_id,
            "type": properties.type, "timestamp": properties.timestamp, "app_id": properties.app_id,
            "correlation_id": properties.correlation_id, "content_type": properties.content_type,
            "delivery_mode": properties.delivery_mode, "payload": body.decode(),
            "headers": {name: plain(value) for name, value in (properties.headers or {}).items()}}))
    if not stream and last % 200 == 0:
        channel.basic_ack(last, multiple=True)
channel.basic_ack(last, multiple=True)
channel.cancel()
connection.close()
