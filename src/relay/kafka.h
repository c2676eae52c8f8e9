/*
 * kafka.h
 *		What the parts of the Kafka broker type share.
 */
#ifndef EVENTSRC_KAFKA_H
#define EVENTSRC_KAFKA_H

#include "relay/relay.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#define ES_KAFKA_NAME		128 /* names that we make */
#define ES_KAFKA_STEP_MS	300 /* how long a thread of ours may be deaf */
#define ES_KAFKA_TOPICS		64	/* a power of two */

/* a producer's topics, those that were used last: by name it looks through all */
typedef struct EsKafkaTopics
{
	rd_kafka_topic_t *topics[ES_KAFKA_TOPICS];	/* by hash of the name */
} EsKafkaTopics;

/* --- clients (kafka_client.c) --- */

extern rd_kafka_conf_t *es_kafka_configure(const char *const(*properties)[2], int count,
										   List *options, char *error, size_t error_size);
extern bool es_kafka_set(rd_kafka_conf_t *conf, const char *name, const char *value,
						 char *error, size_t error_size);
extern rd_kafka_t * es_kafka_start(rd_kafka_type_t kind, rd_kafka_conf_t *conf,
								   char *error, size_t error_size);
extern const char *es_kafka_addresses(List *options);
extern bool es_kafka_is_mock(List *options);
extern bool es_kafka_open_pipe(int *pipe, char *error, size_t error_size);
extern void es_kafka_empty_pipe(int *pipe);
extern void es_kafka_wake_by(rd_kafka_t * client, int *pipe);
extern bool es_kafka_is_final(rd_kafka_resp_err_t error);
extern rd_kafka_error_t *es_kafka_produce(rd_kafka_t * producer, EsKafkaTopics *topics,
										  const EsMessage *message, uint64 sequence);
extern void es_kafka_forget_topics(EsKafkaTopics *topics);
extern void es_kafka_log(int level, const char *facility, const char *text);

/* --- the record of a relay's progress (kafka_progress.c) --- */

typedef struct EsKafkaRecord
{
	EsProgress	progress;
	uint32		timeline;		/* of the server that wrote it */
	uint64		writer;			/* the process that wrote it */
} EsKafkaRecord;

typedef enum EsKafkaResult
{
	ES_KAFKA_OK,
	ES_KAFKA_NOTHING,			/* no record */
	ES_KAFKA_QUIT,				/* broken off, as *quit was set */
	ES_KAFKA_ABORT,				/* the transaction must be aborted */
	ES_KAFKA_FENCED,			/* somebody initialised our producers anew */
	ES_KAFKA_SUPERSEDED,		/* somebody else sends in our place */
	ES_KAFKA_FAILED				/* begin anew with other producers */
} EsKafkaResult;

/*
 * What follows may run in any thread: it touches nothing of PostgreSQL.  quit
 * is looked at every ES_KAFKA_STEP_MS.
 */
extern EsKafkaResult es_kafka_provide_topic(rd_kafka_t * client, const char *topic,
											volatile bool *quit, char *error, size_t error_size);
extern EsKafkaResult es_kafka_read_record(rd_kafka_t * reader, const char *topic, const char *key,
										  EsKafkaRecord *record, bool *decided, volatile bool *quit,
										  char *error, size_t error_size);
extern rd_kafka_error_t *es_kafka_produce_record(rd_kafka_t * producer, rd_kafka_topic_t *topic,
												 const char *key, const EsKafkaRecord *record);

/* --- exactly once (kafka_txn.c) --- */

extern EsBroker *es_kafka_txn_open(List *options, const EsSender *sender, EsWindow *window,
								   char *error, size_t error_size);

#endif							/* EVENTSRC_KAFKA_H */
