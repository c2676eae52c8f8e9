/*
 * rabbitmq_frames.c
 *		AMQP frames as they are written, and an event as an AMQP message.
 *
 * A frame is its type, channel and size, the payload, and an end mark.  An
 * event takes three frames or more: the method basic.publish, the properties,
 * and the value, cut into pieces that fit the broker's frames.
 */
#include "relay/rabbitmq.h"

#include "port/pg_bswap.h"

#define FRAME_HEADER	7
#define FRAME_OVERHEAD	(FRAME_HEADER + 1)
#define METHOD_ROOM		4096	/* more than methods with names need */
#define PROPERTIES_ROOM	2048	/* the same for properties without headers */
#define PERSISTENT		2

static char *begin_frame(EsRabbitLink *link, size_t room);
static void end_frame(EsRabbitLink *link, int type, int channel, size_t size);
static bool put_properties(EsRabbitLink *link, int channel, const EsMessage *message);
static size_t collect_properties(const EsMessage *message, amqp_basic_properties_t *properties,
								 amqp_table_entry_t *entries);
static bool set_property(const EsHeader *header, amqp_basic_properties_t *properties);
static bool is_short(amqp_bytes_t bytes);
static amqp_bytes_t bytes_of(const char *data, size_t length);

/*
 * es_rabbitmq_put_header writes the first bytes of a connection.
 */
void
es_rabbitmq_put_header(EsRabbitLink *link)
{
	appendBinaryStringInfo(&link->out, "AMQP\0\0\11\1", 8);
}

/*
 * es_rabbitmq_put_method writes a method; false if it cannot be encoded, then
 * the link has an error.
 */
bool
es_rabbitmq_put_method(EsRabbitLink *link, int channel, amqp_method_number_t method, void *decoded)
{
	size_t		room = method == AMQP_CONNECTION_START_OK_METHOD ? 16 * METHOD_ROOM : METHOD_ROOM;
	char	   *payload = begin_frame(link, room);
	amqp_bytes_t encoded = {room - 4, payload + 4};
	int			size = amqp_encode_method(method, decoded, encoded);

	if (size < 0)
	{
		es_rabbitmq_link_error(link, "could not encode the AMQP method %s: %s",
							   amqp_method_name(method), amqp_error_string2(size));
		return false;
	}
	method = pg_hton32(method);
	memcpy(payload, &method, 4);
	end_frame(link, AMQP_FRAME_METHOD, channel, size + 4);
	return true;
}

/*
 * es_rabbitmq_put_message writes an event as a message; false, with nothing
 * written, if its properties do not fit into a frame of the broker's.
 */
bool
es_rabbitmq_put_message(EsRabbitLink *link, int channel, amqp_bytes_t exchange,
						amqp_bytes_t routing_key, const EsMessage *message)
{
	amqp_basic_publish_t publish = {0};
	int			before = link->out.len;
	size_t		piece = link->frame_max - FRAME_OVERHEAD;

	publish.exchange = exchange;
	publish.routing_key = routing_key;
	publish.mandatory = 1;
	if (!es_rabbitmq_put_method(link, channel, AMQP_BASIC_PUBLISH_METHOD, &publish) ||
		!put_properties(link, channel, message))
	{
		link->out.len = before;
		return false;
	}
	for (size_t done = 0; done < message->value_length; done += piece)
	{
		size_t		size = Min(piece, message->value_length - done);

		memcpy(begin_frame(link, size), message->value + done, size);
		end_frame(link, AMQP_FRAME_BODY, channel, size);
	}
	return true;
}

/*
 * es_rabbitmq_put_heartbeat writes a heartbeat.
 */
void
es_rabbitmq_put_heartbeat(EsRabbitLink *link)
{
	(void) begin_frame(link, 0);
	end_frame(link, AMQP_FRAME_HEARTBEAT, 0, 0);
}

/*
 * es_rabbitmq_position reads an event's position from its message's headers, -1
 * if there is none.
 */
int64
es_rabbitmq_position(const amqp_basic_properties_t *properties)
{
	if ((properties->_flags & AMQP_BASIC_HEADERS_FLAG) == 0)
		return -1;
	for (int i = 0; i < properties->headers.num_entries; i++)
	{
		const amqp_table_entry_t *entry = &properties->headers.entries[i];
		char		digits[24];

		if (entry->key.len != strlen("position") ||
			memcmp(entry->key.bytes, "position", entry->key.len) != 0)
			continue;
		if (entry->value.kind == AMQP_FIELD_KIND_I64)
			return entry->value.value.i64;
		if (entry->value.kind == AMQP_FIELD_KIND_UTF8 &&
			entry->value.value.bytes.len < sizeof(digits))
		{
			memcpy(digits, entry->value.value.bytes.bytes, entry->value.value.bytes.len);
			digits[entry->value.value.bytes.len] = '\0';
			return strtoll(digits, NULL, 10);
		}
	}
	return -1;
}

/*
 * begin_frame makes room for a frame and returns where its payload goes.
 */
static char *
begin_frame(EsRabbitLink *link, size_t room)
{
	enlargeStringInfo(&link->out, room + FRAME_OVERHEAD);
	return link->out.data + link->out.len + FRAME_HEADER;
}

/*
 * end_frame completes the frame whose payload was written.
 */
static void
end_frame(EsRabbitLink *link, int type, int channel, size_t size)
{
	unsigned char *frame = (unsigned char *) link->out.data + link->out.len;
	uint16		channel_n = pg_hton16((uint16) channel);
	uint32		size_n = pg_hton32((uint32) size);

	frame[0] = type;
	memcpy(frame + 1, &channel_n, 2);
	memcpy(frame + 3, &size_n, 4);
	frame[FRAME_HEADER + size] = AMQP_FRAME_END;
	link->out.len += size + FRAME_OVERHEAD;
}

/*
 * put_properties writes the frame with an event's properties; false if they do
 * not fit.
 */
static bool
put_properties(EsRabbitLink *link, int channel, const EsMessage *message)
{
	amqp_basic_properties_t properties = {0};
	amqp_table_entry_t entries[ES_MAX_HEADERS + 2];
	size_t		room = collect_properties(message, &properties, entries);
	char	   *payload;
	amqp_bytes_t encoded;
	int			size;
	uint16		class = pg_hton16(AMQP_BASIC_CLASS);
	uint64		body = pg_hton64((uint64) message->value_length);

	if (room > link->frame_max - FRAME_OVERHEAD)
		return false;
	payload = begin_frame(link, room);
	encoded.bytes = payload + 12;
	encoded.len = room - 12;
	size = amqp_encode_properties(AMQP_BASIC_CLASS, &properties, encoded);
	if (size < 0)
		return false;
	memcpy(payload, &class, 2);
	memset(payload + 2, 0, 2);
	memcpy(payload + 4, &body, 8);
	end_frame(link, AMQP_FRAME_HEADER, channel, size + 12);
	return true;
}

/*
 * collect_properties sets an event's properties and headers, and returns how
 * much room they need at most.
 */
static size_t
collect_properties(const EsMessage *message, amqp_basic_properties_t *properties,
				   amqp_table_entry_t *entries)
{
	size_t		room = PROPERTIES_ROOM;
	bool		position = false;
	amqp_table_entry_t *entry = entries;

	properties->_flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG |
		AMQP_BASIC_APP_ID_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_HEADERS_FLAG;
	properties->delivery_mode = PERSISTENT;
	properties->timestamp = message->timestamp_ms / 1000;
	properties->app_id = amqp_cstring_bytes("eventsrc");
	properties->content_type = amqp_cstring_bytes("application/json");
	properties->message_id = bytes_of(message->event_id, message->event_id_length);
	if (is_short(properties->message_id))
		properties->_flags |= AMQP_BASIC_MESSAGE_ID_FLAG;

	for (int i = 0; i < message->nheaders; i++)
	{
		const EsHeader *header = &message->headers[i];

		if (set_property(header, properties))
			continue;
		entry->key = amqp_cstring_bytes(header->name);
		entry->value.kind = AMQP_FIELD_KIND_UTF8;
		entry->value.value.bytes = bytes_of(header->value, header->length);
		room += entry->key.len + header->length + 16;
		entry++;
		if (strcmp(header->name, "position") == 0)
			position = true;
	}

	/* by which a returned message is known again */
	if (!position)
	{
		entry->key = amqp_cstring_bytes("position");
		entry->value.kind = AMQP_FIELD_KIND_I64;
		entry->value.value.i64 = message->position;
		entry++;
	}
	entry->key = amqp_cstring_bytes("key");
	entry->value.kind = AMQP_FIELD_KIND_UTF8;
	entry->value.value.bytes = bytes_of(message->key, message->key_length);
	room += message->key_length + 16;
	entry++;
	properties->headers.entries = entries;
	properties->headers.num_entries = entry - entries;
	return room;
}

/*
 * set_property sets the property that says the same as a header; true if the
 * header is not needed then.  The event's type remains one, as exchanges can go
 * by headers.
 */
static bool
set_property(const EsHeader *header, amqp_basic_properties_t *properties)
{
	amqp_bytes_t value = bytes_of(header->value, header->length);

	if (!is_short(value))
		return false;
	if (strcmp(header->name, "content-type") == 0)
	{
		properties->content_type = value;
		return true;
	}
	if (strcmp(header->name, "event-type") == 0)
	{
		properties->type = value;
		properties->_flags |= AMQP_BASIC_TYPE_FLAG;
	}
	else if (strcmp(header->name, "correlation-id") == 0)
	{
		properties->correlation_id = value;
		properties->_flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
		return true;
	}
	return strcmp(header->name, "event-id") == 0;
}

/*
 * is_short tells whether a string fits into AMQP's short strings.
 */
static bool
is_short(amqp_bytes_t bytes)
{
	return bytes.len <= ES_RABBITMQ_NAME;
}

/*
 * bytes_of makes librabbitmq's kind of string; it has no const.
 */
static amqp_bytes_t
bytes_of(const char *data, size_t length)
{
	amqp_bytes_t bytes = {length, unconstify(char *, data)};

	return bytes;
}
