/*
 * rabbitmq_bare.c
 *		A bare producer for RabbitMQ, as the measure of the relay: publishes
 *		messages from memory with librabbitmq, persistent, mandatory, confirmed,
 *		with a window of unconfirmed ones, and prints messages a second and the CPU
 *		seconds that it took.
 *
 *		rabbitmq_bare PORT QUEUE WINDOW COUNT BYTES [plain]
 *		rabbitmq_bare PORT QUEUE look
 *			only prints how many messages are there and the size of the first one's body
 *
 * The queue is there already.  The messages carry the properties and headers
 * that the relay's carry; with plain only a message-id.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define HEADERS 7

static void open_channel(amqp_connection_state_t connection, int port);
static void look(amqp_connection_state_t connection, const char *queue);
static void check(amqp_connection_state_t connection, const char *what);
static void publish(amqp_connection_state_t connection, const char *queue, long number,
					amqp_bytes_t body);
static long take_acks(amqp_connection_state_t connection, bool wait);
static double now(void);

static long confirmed_up_to;
static bool plain;

int
main(int argc, char **argv)
{
	amqp_connection_state_t connection = amqp_new_connection();
	long		window,
				count,
				bytes;
	long		sent = 0;
	long		confirmed = 0;
	char	   *body;
	double		begun;
	struct rusage usage;

	if (argc < 6 && !(argc == 4 && strcmp(argv[3], "look") == 0))
	{
		fprintf(stderr, "rabbitmq_bare PORT QUEUE WINDOW COUNT BYTES [plain]\n");
		return 2;
	}
	if (argc == 4)
	{
		open_channel(connection, atoi(argv[1]));
		look(connection, argv[2]);
		return 0;
	}
	window = atol(argv[3]);
	count = atol(argv[4]);
	bytes = atol(argv[5]);
	plain = argc > 6;
	body = malloc(bytes);
	memset(body, 'x', bytes);

	open_channel(connection, atoi(argv[1]));
	amqp_confirm_select(connection, 1);
	check(connection, "confirm");

	begun = now();
	while (confirmed < count)
	{
		while (sent < count && sent - confirmed < window)
		{
			amqp_bytes_t bytes_of_body = {bytes, body};

			publish(connection, argv[2], ++sent, bytes_of_body);
			if (sent % 32 == 0)
				confirmed = take_acks(connection, false);
		}
		confirmed = take_acks(connection, sent - confirmed >= window || sent == count);
	}
	begun = now() - begun;
	getrusage(RUSAGE_SELF, &usage);
	printf("%.0f %.2f\n", count / begun, usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		   (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
	amqp_destroy_connection(connection);
	return 0;
}

/*
 * open_channel connects to the broker and opens channel 1.
 */
static void
open_channel(amqp_connection_state_t connection, int port)
{
	if (amqp_socket_open(amqp_tcp_socket_new(connection), "127.0.0.1", port) != 0)
	{
		fprintf(stderr, "cannot connect\n");
		exit(1);
	}
	if (amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest").reply_type != AMQP_RESPONSE_NORMAL)
	{
		fprintf(stderr, "cannot log in\n");
		exit(1);
	}
	amqp_channel_open(connection, 1);
	check(connection, "channel");
}

/*
 * look prints how many messages a queue has, and the size of the first one's
 * body.
 */
static void
look(amqp_connection_state_t connection, const char *queue)
{
	amqp_queue_declare_ok_t *there = amqp_queue_declare(connection, 1, amqp_cstring_bytes(queue), 1, 0, 0, 0, amqp_empty_table);
	amqp_message_t message;
	unsigned	count;

	check(connection, "queue");
	count = there->message_count;
	amqp_basic_get(connection, 1, amqp_cstring_bytes(queue), 1);
	check(connection, "get");
	if (amqp_read_message(connection, 1, &message, 0).reply_type != AMQP_RESPONSE_NORMAL)
	{
		fprintf(stderr, "no message in %s\n", queue);
		exit(1);
	}
	printf("%u %zu\n", count, message.body.len);
}

/*
 * check ends the program if the last call failed.
 */
static void
check(amqp_connection_state_t connection, const char *what)
{
	if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL)
	{
		fprintf(stderr, "%s failed\n", what);
		exit(1);
	}
}

/*
 * publish sends a message to a queue.
 */
static void
publish(amqp_connection_state_t connection, const char *queue, long number, amqp_bytes_t body)
{
	static const char *const names[HEADERS] = {"event-type", "schema-version", "aggregate-type", "version",
	"position", "store", "key"};
	static const char *const values[HEADERS] = {"Happened", "1", "Order", "123", "123456", "es", "123"};
	amqp_table_entry_t headers[HEADERS];
	amqp_basic_properties_t properties;
	char		id[64];
	int			status;

	snprintf(id, sizeof(id), "0190163d-8694-739b-aea5-%012ld", number);
	for (int i = 0; i < HEADERS; i++)
	{
		headers[i].key = amqp_cstring_bytes(names[i]);
		headers[i].value.kind = AMQP_FIELD_KIND_UTF8;
		headers[i].value.value.bytes = amqp_cstring_bytes(values[i]);
	}
	memset(&properties, 0, sizeof(properties));
	properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG |
		AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_APP_ID_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_HEADERS_FLAG;
	properties.delivery_mode = 2;
	properties.message_id = amqp_cstring_bytes(id);
	properties.type = amqp_cstring_bytes("Happened");
	properties.correlation_id = amqp_cstring_bytes("0190163d-8694-739b-aea5-966c26f8ad90");
	properties.timestamp = 1718880000;
	properties.app_id = amqp_cstring_bytes("eventsrc");
	properties.content_type = amqp_cstring_bytes("application/json");
	properties.headers.num_entries = HEADERS;
	properties.headers.entries = headers;
	if (plain)
		properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG;
	status = amqp_basic_publish(connection, 1, amqp_empty_bytes, amqp_cstring_bytes(queue), 1, 0, &properties, body);
	if (status != AMQP_STATUS_OK)
	{
		fprintf(stderr, "publish: %s\n", amqp_error_string2(status));
		exit(1);
	}
}

/*
 * take_acks reads what the broker has sent, waiting for something if told, and
 * returns how many messages are confirmed.
 */
static long
take_acks(amqp_connection_state_t connection, bool wait)
{
	/* which of those beyond confirmed_up_to are confirmed one by one */
	static unsigned char done[1 << 20];

	for (;;)
	{
		struct timeval patience = {wait ? 30 : 0, 0};
		amqp_frame_t frame;
		int			status;

		amqp_maybe_release_buffers(connection);
		status = amqp_simple_wait_frame_noblock(connection, &frame, &patience);
		if (status == AMQP_STATUS_TIMEOUT && !wait)
			return confirmed_up_to;
		if (status != AMQP_STATUS_OK)
		{
			fprintf(stderr, "acks: %s\n", amqp_error_string2(status));
			exit(1);
		}
		wait = false;
		if (frame.frame_type != AMQP_FRAME_METHOD)
			continue;
		if (frame.payload.method.id == AMQP_BASIC_ACK_METHOD)
		{
			amqp_basic_ack_t *ack = frame.payload.method.decoded;

			if (ack->multiple)
			{
				for (long i = confirmed_up_to + 1; i <= (long) ack->delivery_tag; i++)
					done[i % sizeof(done)] = 0;
				if ((long) ack->delivery_tag > confirmed_up_to)
					confirmed_up_to = ack->delivery_tag;
			}
			else
				done[ack->delivery_tag % sizeof(done)] = 1;
			while (done[(confirmed_up_to + 1) % sizeof(done)])
				done[++confirmed_up_to % sizeof(done)] = 0;
		}
		else
		{
			fprintf(stderr, "the broker refuses\n");
			exit(1);
		}
	}
}

/*
 * now returns the time in seconds.
 */
static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}
