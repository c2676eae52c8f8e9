/*
 * kafka_tool.c
 *		What the benchmark of relays to Kafka needs of a client.
 *
 *		kafka_tool BROKER topic NAME PARTITIONS
 *			makes a topic
 *		kafka_tool BROKER drain TOPIC EVENTS BATCH BYTES
 *			the bare producer: as fast as it can from memory, in transactions of BATCH
 *			(0: none, only idempotent); prints events a second and CPU seconds
 *		kafka_tool BROKER latency TOPIC CONNINFO RATE SECONDS
 *			appends RATE events a second, ten a transaction, and measures the time from
 *			the end of each commit to the arrival at a read_committed consumer of the
 *			relay's topic; prints how many arrived, and p50, p95, p99 and maximum in ms
 */
#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define ROWS	10				/* events a transaction */

static const char *broker;

/* the latency measurement: event k was committed and arrived then */
static const char *topic;
static double *committed;
static double *arrived;
static long total;
static atomic_long arrivals;
static atomic_int ready;
static atomic_int twice;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

/* check ends the program if a call of librdkafka failed. */
static void
check(rd_kafka_error_t *error, const char *what)
{
	if (error != NULL)
		die(what, rd_kafka_error_string(error));
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		die(name, error);
}

static rd_kafka_t *
start(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	char		error[256];
	rd_kafka_t *client;

	set(conf, "bootstrap.servers", broker);
	set(conf, "socket.nagle.disable", "true");
	client = rd_kafka_new(type, conf, error, sizeof(error));
	if (client == NULL)
		die("rd_kafka_new", error);
	return client;
}

static void
make_topic(const char *name, int partitions)
{
	char		error[256];
	rd_kafka_t *client = start(RD_KAFKA_PRODUCER, rd_kafka_conf_new());
	rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(name, partitions, 1, error, sizeof(error));
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	rd_kafka_event_t *event;
	const rd_kafka_topic_result_t **results;
	size_t		count;

	rd_kafka_CreateTopics(client, &wanted, 1, NULL, queue);
	event = rd_kafka_queue_poll(queue, 30000);
	if (event == NULL || rd_kafka_event_error(event))
		die(name, "no answer");
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
	if (rd_kafka_topic_result_error(results[0]))
		die(name, rd_kafka_err2str(rd_kafka_topic_result_error(results[0])));
	rd_kafka_event_destroy(event);
}

/* put produces a message, waiting for room. */
static void
put(rd_kafka_t *producer, const char *name, const void *key, size_t key_length,
	const void *value, size_t length)
{
	rd_kafka_resp_err_t error;

	while ((error = rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(name), RD_KAFKA_V_KEY(key, key_length),
									  RD_KAFKA_V_VALUE((void *) value, length),
									  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
									  RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		rd_kafka_poll(producer, 10);
	if (error)
		die("produce", rd_kafka_err2str(error));
}

static void
drain(const char *name, long events, long batch, size_t bytes)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *producer;
	char	   *value = malloc(bytes);
	char		id[64];
	double		begin;
	struct rusage usage;

	memset(value, 'x', bytes);
	set(conf, "enable.idempotence", "true");
	set(conf, "queue.buffering.max.messages", "1000000");
	set(conf, "partitioner", "murmur2_random");
	snprintf(id, sizeof(id), "bare-%d", getpid());
	if (batch > 0)
		set(conf, "transactional.id", id);
	producer = start(RD_KAFKA_PRODUCER, conf);
	if (batch > 0)
		check(rd_kafka_init_transactions(producer, 30000), "init_transactions");

	begin = now();
	for (long i = 0; i < events; i++)
	{
		char		key[32];
		int			length = snprintf(key, sizeof(key), "%ld", i / 100);

		if (batch > 0 && i % batch == 0)
			check(rd_kafka_begin_transaction(producer), "begin");
		put(producer, name, key, length, value, bytes);
		if (i % 1024 == 0)
			rd_kafka_poll(producer, 0);
		if (batch > 0 && ((i + 1) % batch == 0 || i + 1 == events))
			check(rd_kafka_commit_transaction(producer, -1), "commit");
	}
	rd_kafka_flush(producer, 120000);
	getrusage(RUSAGE_SELF, &usage);
	printf("%.0f %.2f\n", events / (now() - begin),
		   usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		   (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

/* watch consumes the topic and notes when each event arrives. */
static void *
watch(void *unused)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_partition_list_t *partitions;
	rd_kafka_t *consumer;
	rd_kafka_topic_t *handle;
	int			count;
	int			ends = 0;
	double		last = now();

	set(conf, "group.id", "bench");
	set(conf, "isolation.level", "read_committed");
	set(conf, "enable.auto.commit", "false");
	set(conf, "enable.partition.eof", "true");
	consumer = start(RD_KAFKA_CONSUMER, conf);
	rd_kafka_poll_set_consumer(consumer);
	handle = rd_kafka_topic_new(consumer, topic, NULL);
	if (rd_kafka_metadata(consumer, 0, handle, &metadata, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die(topic, "no metadata");
	count = metadata->topics[0].partition_cnt;
	partitions = rd_kafka_topic_partition_list_new(count);
	for (int i = 0; i < count; i++)
		rd_kafka_topic_partition_list_add(partitions, topic, i)->offset = RD_KAFKA_OFFSET_END;
	rd_kafka_assign(consumer, partitions);

	while (arrivals < total && now() - last < 30)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 100);
		char	   *mark;

		if (message == NULL)
			continue;
		if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			ready = ready || ++ends >= count;
		else if (!message->err && (mark = memmem(message->payload, message->len, "\"n\": ", 5)) != NULL)
		{
			long		k = atol(mark + 5);

			last = now();
			if (k >= 0 && k < total && arrived[k] == 0)
			{
				arrived[k] = last;
				arrivals++;
			}
			else
				twice++;
		}
		rd_kafka_message_destroy(message);
	}
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
latency(const char *conninfo, double rate, double seconds)
{
	PGconn	   *connection = PQconnectdb(conninfo);
	pthread_t	thread;
	double		begin;
	double	   *times;
	long		count = 0;

	if (PQstatus(connection) != CONNECTION_OK)
		die("connect", PQerrorMessage(connection));
	total = (long) (rate * seconds) / ROWS * ROWS;
	committed = calloc(total, sizeof(double));
	arrived = calloc(total, sizeof(double));
	times = calloc(total, sizeof(double));
	pthread_create(&thread, NULL, watch, NULL);
	while (!ready)
		usleep(1000);
	PQclear(PQprepare(connection, "append",
					  "SELECT es_append_events('Order', ($1::bigint / 10 % 100)::text, array_fill('Placed'::text, ARRAY[10]),"
					  " ARRAY(SELECT jsonb_build_object('n', i, 'x', repeat('x', 180))"
					  " FROM generate_series($1::bigint, $1::bigint + 9) i))", 1, NULL));

	begin = now();
	for (long i = 0; i < total; i += ROWS)
	{
		char		number[32];
		const char *values[] = {number};
		double		due = begin + i / rate;
		double		time = now();
		PGresult   *result;

		if (time < due)
			usleep((due - time) * 1e6);
		snprintf(number, sizeof(number), "%ld", i);
		result = PQexecPrepared(connection, "append", 1, values, NULL, NULL, 0);
		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			die("append", PQerrorMessage(connection));
		PQclear(result);
		time = now();
		for (int j = 0; j < ROWS; j++)
			committed[i + j] = time;
	}
	begin = now() - begin;
	pthread_join(thread, NULL);
	for (long i = 0; i < total; i++)
	{
		if (arrived[i] > 0)
			times[count++] = (arrived[i] - committed[i]) * 1000;
	}
	if (count == 0)
		die(topic, "nothing arrived");
	qsort(times, count, sizeof(double), compare);
	printf("%ld/%ld %.1f %.1f %.1f %.1f (%.0f events/s, %d twice)\n", count, total, times[count / 2],
		   times[count * 95 / 100], times[count * 99 / 100], times[count - 1], total / begin, (int) twice);
}

int
main(int argc, char **argv)
{
	if (argc < 4)
		die(argv[0], "see its head");
	broker = argv[1];
	topic = argv[3];
	if (strcmp(argv[2], "topic") == 0 && argc == 5)
		make_topic(argv[3], atoi(argv[4]));
	else if (strcmp(argv[2], "drain") == 0 && argc == 7)
		drain(argv[3], atol(argv[4]), atol(argv[5]), atol(argv[6]));
	else if (strcmp(argv[2], "latency") == 0 && argc == 7)
		latency(argv[4], atof(argv[5]), atof(argv[6]));
	else
		die(argv[0], "see its head");
	return 0;
}
