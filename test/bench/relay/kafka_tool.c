/*
 * kafka_tool.c
 *		What the benchmark of relays to Kafka needs of a client.
 *
 *		kafka_tool BROKER topic NAME PARTITIONS
 *			makes a topic in which the broker notes when it got each batch
 *		kafka_tool BROKER drop NAME
 *			drops it
 *		kafka_tool BROKER produce TOPIC EVENTS BATCH BYTES
 *			the bare producer: as fast as it can from memory, in transactions of BATCH
 *			(0: none, only idempotent); prints the CPU seconds that it took
 *		kafka_tool BROKER wait TOPIC EVENTS SECONDS
 *			waits until the topic holds so many records
 *		kafka_tool BROKER read TOPIC EVENTS
 *			reads all that is committed; prints how many of the EVENTS events are there,
 *			how many more than once, the seconds between the broker's getting the first
 *			and the last, the mean size of transactions (0: there were none) and of values
 *		kafka_tool BROKER latency TOPIC CONNINFO RATE SECONDS ROWS
 *			appends RATE events a second to the store live, ROWS a transaction, and
 *			measures the time from the end of each commit to the arrival at a
 *			read_committed consumer of the topic; prints how many were appended, lost and
 *			seen twice, p50, p95, p99 and maximum in ms, events/s appended and arrived
 *
 * Events are told apart by the number "n" in their data.
 */
#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MARK		"\"n\": "	/* what stands before an event's number */
#define PATIENCE	30			/* seconds without an arrival: the rest is lost */

static const char *broker;

/* the latency measurement: event k was committed and arrived then */
static const char *topic;
static double *committed;
static double *arrived;
static long total;
static double last_arrival;
static atomic_int ready;
static long twice;

/* now returns the time in seconds. */
static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* die says what went wrong and ends the program. */
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

/* set sets a property. */
static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		die(name, error);
}

/* start makes a client. */
static rd_kafka_t *
start(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	char		error[256];
	rd_kafka_t *client;

	set(conf, "bootstrap.servers", broker);
	set(conf, "socket.nagle.disable", "true");
	/* a broker that has just been started is not ready at once: that is no news */
	set(conf, "log_level", "3");
	client = rd_kafka_new(type, conf, error, sizeof(error));
	if (client == NULL)
		die("rd_kafka_new", error);
	return client;
}

/* wait_for_result returns the broker's answer to a request about one topic, or dies of its error. */
static void
wait_for_result(rd_kafka_queue_t *queue, const char *name, bool made)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 30000);
	const rd_kafka_topic_result_t **results;
	size_t		count;

	if (event == NULL || rd_kafka_event_error(event))
		die(name, "no answer");
	if (made)
		results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
	else
		results = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &count);
	if (rd_kafka_topic_result_error(results[0]))
		die(name, rd_kafka_err2str(rd_kafka_topic_result_error(results[0])));
	rd_kafka_event_destroy(event);
}

/* make_topic makes a topic whose records have the time when the broker got them. */
static void
make_topic(const char *name, int partitions)
{
	char		error[256];
	rd_kafka_t *client = start(RD_KAFKA_PRODUCER, rd_kafka_conf_new());
	rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(name, partitions, 1, error, sizeof(error));
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);

	rd_kafka_NewTopic_set_config(wanted, "message.timestamp.type", "LogAppendTime");
	rd_kafka_NewTopic_set_config(wanted, "file.delete.delay.ms", "1000");
	rd_kafka_CreateTopics(client, &wanted, 1, NULL, queue);
	wait_for_result(queue, name, true);
}

/* drop_topic drops a topic. */
static void
drop_topic(const char *name)
{
	rd_kafka_t *client = start(RD_KAFKA_PRODUCER, rd_kafka_conf_new());
	rd_kafka_DeleteTopic_t *wanted = rd_kafka_DeleteTopic_new(name);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);

	rd_kafka_DeleteTopics(client, &wanted, 1, NULL, queue);
	wait_for_result(queue, name, false);
}

/* count_partitions returns how many partitions a topic has. */
static int
count_partitions(rd_kafka_t *client, const char *name)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(client, name, NULL);
	int			count;

	if (rd_kafka_metadata(client, 0, handle, &metadata, 10000) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die(name, "no metadata");
	count = metadata->topics[0].partition_cnt;
	rd_kafka_metadata_destroy(metadata);
	rd_kafka_topic_destroy(handle);
	if (count == 0)
		die(name, "no such topic");
	return count;
}

/* count_records returns how many records a topic holds, the ends of transactions among them. */
static long
count_records(rd_kafka_t *client, const char *name, int partitions)
{
	long		count = 0;

	for (int i = 0; i < partitions; i++)
	{
		int64_t		low;
		int64_t		high;

		if (rd_kafka_query_watermark_offsets(client, name, i, &low, &high, 10000) == RD_KAFKA_RESP_ERR_NO_ERROR)
			count += high;
	}
	return count;
}

/* start_consumer makes a read_committed consumer of all partitions of a topic, from their beginning or end. */
static rd_kafka_t *
start_consumer(const char *name, int64_t from, int *partitions)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_t *consumer;

	set(conf, "group.id", "bench");
	set(conf, "isolation.level", "read_committed");
	set(conf, "enable.auto.commit", "false");
	set(conf, "enable.partition.eof", "true");
	consumer = start(RD_KAFKA_CONSUMER, conf);
	rd_kafka_poll_set_consumer(consumer);
	*partitions = count_partitions(consumer, name);
	list = rd_kafka_topic_partition_list_new(*partitions);
	for (int i = 0; i < *partitions; i++)
		rd_kafka_topic_partition_list_add(list, name, i)->offset = from;
	rd_kafka_assign(consumer, list);
	rd_kafka_topic_partition_list_destroy(list);
	return consumer;
}

/* number_of returns an event's number, -1 if it has none. */
static long
number_of(const rd_kafka_message_t *message)
{
	char	   *mark = memmem(message->payload, message->len, MARK, strlen(MARK));

	/* an object's end, or a comma, stands behind the number */
	return mark == NULL ? -1 : atol(mark + strlen(MARK));
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

/* produce is the bare producer. */
static void
produce(const char *name, long events, long batch, size_t bytes)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *producer;
	struct rusage usage;
	char	   *value = malloc(bytes);
	char		id[40];

	memset(value, 'x', bytes);
	set(conf, "enable.idempotence", "true");
	set(conf, "linger.ms", "5");
	set(conf, "queue.buffering.max.messages", "1000000");
	set(conf, "queue.buffering.max.kbytes", "1048576");
	set(conf, "partitioner", "murmur2_random");
	snprintf(id, sizeof(id), "bare-%d", getpid());
	if (batch > 0)
		set(conf, "transactional.id", id);
	producer = start(RD_KAFKA_PRODUCER, conf);
	if (batch > 0)
		check(rd_kafka_init_transactions(producer, 30000), "init_transactions");

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
	if (rd_kafka_flush(producer, 120000) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die(name, "not everything was sent");
	getrusage(RUSAGE_SELF, &usage);
	printf("%.2f\n", usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		   (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

/* wait_for_records waits until a topic holds so many records. */
static void
wait_for_records(const char *name, long events, double seconds)
{
	rd_kafka_t *client = start(RD_KAFKA_PRODUCER, rd_kafka_conf_new());
	int			partitions = count_partitions(client, name);
	double		end = now() + seconds;

	while (count_records(client, name, partitions) < events)
	{
		if (now() > end)
			die(name, "too few records");
		usleep(50000);
	}
}

/* read_topic reads all that is committed, and prints what it is. */
static void
read_topic(const char *name, long events)
{
	int			partitions;
	rd_kafka_t *consumer = start_consumer(name, RD_KAFKA_OFFSET_BEGINNING, &partitions);
	char	   *seen = calloc(events, 1);
	long		messages = 0;
	long		distinct = 0;
	long		more = 0;
	long		ends;
	int64_t		bytes = 0;
	int64_t		first = INT64_MAX;
	int64_t		last = 0;

	for (int done = 0; done < partitions;)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, PATIENCE * 1000);

		if (message == NULL)
			die(name, "cannot be read to its end");
		if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			done++;
		else if (!message->err)
		{
			int64_t		time = rd_kafka_message_timestamp(message, NULL);
			long		k = number_of(message);

			messages++;
			bytes += message->len;
			first = time < first ? time : first;
			last = time > last ? time : last;
			if (k >= 0 && k < events)
			{
				distinct += !seen[k];
				more += seen[k];
				seen[k] = 1;
			}
		}
		rd_kafka_message_destroy(message);
	}
	if (messages == 0)
		die(name, "is empty");
	/* each transaction ends with a record in every partition that it wrote to */
	ends = count_records(consumer, name, partitions) - messages;
	printf("%ld %ld %.3f %ld %ld\n", distinct, more, (last - first) / 1e3,
		   ends > 0 ? messages * partitions / ends : 0, (long) (bytes / messages));
}

/* watch consumes the topic and notes when each event arrives. */
static void *
watch(void *unused)
{
	int			partitions;
	rd_kafka_t *consumer = start_consumer(topic, RD_KAFKA_OFFSET_END, &partitions);
	int			ends = 0;
	long		arrivals = 0;

	last_arrival = now();
	while (arrivals < total && now() - last_arrival < PATIENCE)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 100);
		long		k;

		if (message == NULL)
			continue;
		if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			ready = ready || ++ends >= partitions;
		else if (!message->err && (k = number_of(message)) >= 0)
		{
			last_arrival = now();
			if (k < total && arrived[k] == 0)
			{
				arrived[k] = last_arrival;
				arrivals++;
			}
			else
				twice++;
		}
		rd_kafka_message_destroy(message);
	}
	return NULL;
}

/* compare orders two times. */
static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* append appends events, ROWS a transaction, at their times, and notes when each commit is over. */
static void
append(PGconn *connection, double rate, int rows)
{
	char		statement[500];
	PGresult   *result;
	double		begin;

	snprintf(statement, sizeof(statement),
			 "SELECT es_append_events('Order', ($1::bigint / %d %% 100)::text, array_fill('Placed'::text, ARRAY[%d]),"
			 " ARRAY(SELECT jsonb_build_object('n', i, 'x', repeat('x', 180))"
			 " FROM generate_series($1::bigint, $1::bigint + %d) i), store => 'live')", rows, rows, rows - 1);
	result = PQprepare(connection, "append", statement, 1, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("prepare", PQerrorMessage(connection));
	PQclear(result);

	begin = now();
	for (long i = 0; i < total; i += rows)
	{
		char		number[32];
		const char *values[] = {number};
		double		due = begin + i / rate;
		double		time = now();

		if (time < due)
			usleep((due - time) * 1e6);
		snprintf(number, sizeof(number), "%ld", i);
		result = PQexecPrepared(connection, "append", 1, values, NULL, NULL, 0);
		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			die("append", PQerrorMessage(connection));
		PQclear(result);
		time = now();
		for (int j = 0; j < rows; j++)
			committed[i + j] = time;
	}
}

/* measure_latency appends events, watches the topic, and prints how long they took. */
static void
measure_latency(const char *conninfo, double rate, double seconds, int rows)
{
	PGconn	   *connection = PQconnectdb(conninfo);
	pthread_t	thread;
	double		begin;
	double		end;
	double	   *times;
	long		count = 0;

	if (PQstatus(connection) != CONNECTION_OK)
		die("connect", PQerrorMessage(connection));
	total = (long) (rate * seconds) / rows * rows;
	committed = calloc(total, sizeof(double));
	arrived = calloc(total, sizeof(double));
	times = calloc(total, sizeof(double));
	pthread_create(&thread, NULL, watch, NULL);
	while (!ready)
		usleep(1000);

	begin = now();
	append(connection, rate, rows);
	end = now();
	pthread_join(thread, NULL);
	for (long i = 0; i < total; i++)
	{
		if (arrived[i] > 0)
			times[count++] = (arrived[i] - committed[i]) * 1000;
	}
	if (count == 0)
		die(topic, "nothing arrived");
	qsort(times, count, sizeof(double), compare);
	printf("%ld %ld %ld %.1f %.1f %.1f %.1f %.0f %.0f\n", total, total - count, twice, times[count / 2],
		   times[count * 95 / 100], times[count * 99 / 100], times[count - 1], total / (end - begin),
		   count / (last_arrival - begin));
}

int
main(int argc, char **argv)
{
	if (argc < 4)
		die(argv[0], "see its head");
	broker = argv[1];
	topic = argv[3];
	if (strcmp(argv[2], "topic") == 0 && argc == 5)
		make_topic(topic, atoi(argv[4]));
	else if (strcmp(argv[2], "drop") == 0)
		drop_topic(topic);
	else if (strcmp(argv[2], "produce") == 0 && argc == 7)
		produce(topic, atol(argv[4]), atol(argv[5]), atol(argv[6]));
	else if (strcmp(argv[2], "wait") == 0 && argc == 6)
		wait_for_records(topic, atol(argv[4]), atof(argv[5]));
	else if (strcmp(argv[2], "read") == 0 && argc == 5)
		read_topic(topic, atol(argv[4]));
	else if (strcmp(argv[2], "latency") == 0 && argc == 8)
		measure_latency(argv[4], atof(argv[5]), atof(argv[6]), atoi(argv[7]));
	else
		die(argv[0], "see its head");
	return 0;
}
