/*
 * kafka_txn.h
 *		Exactly once: what the relay's thread and its helper share.
 */
#ifndef EVENTSRC_KAFKA_TXN_H
#define EVENTSRC_KAFKA_TXN_H

#include "relay/kafka.h"

#define ES_KAFKA_TURNS		4
#define ES_KAFKA_LOG_LINES	16
#define ES_KAFKA_LOG_LENGTH	256

/*
 * What the next transaction has is not sent before this one's messages are all
 * in Kafka: librdkafka holds messages back so long unless it is told to flush,
 * and a transaction that takes longer to reach Kafka is aborted before that.
 */
#define ES_KAFKA_HELD		"28000" /* ms */
#define ES_KAFKA_FLUSH_MS	25000

/* a transaction of fewer events is small */
#define ES_KAFKA_SMALL		1000

/* the longest that a producer rests after a commit */
#define ES_KAFKA_REST_MS	20

/* one of the producers that take turns, and its open transaction */
typedef struct EsKafkaTurn
{
	rd_kafka_t *producer;
	rd_kafka_queue_t *queue;	/* what it has to say */
	EsKafkaTopics topics;
	rd_kafka_topic_t *record_topic; /* of the progress; from the start on */
	bool		begun;
	uint64		count;			/* events */
	uint64		last_sequence;	/* of the last event, in the window */
	EsProgress	progress;		/* with this transaction */
	TimestampTz rests_until;	/* after the last one, if it was small; or 0 */
} EsKafkaTurn;

typedef enum EsKafkaJob
{
	ES_JOB_NONE,
	ES_JOB_START,				/* fence others, read the progress */
	ES_JOB_COMMIT,				/* one turn's transaction */
	ES_JOB_ABORT				/* all of them */
} EsKafkaJob;

typedef struct EsKafkaLogLine
{
	int			level;
	char		facility[32];
	char text[	ES_KAFKA_LOG_LENGTH];
} EsKafkaLogLine;

typedef struct EsKafkaTxn
{
	EsBroker	base;
	EsKafkaTurn turns[ES_KAFKA_TURNS];
	rd_kafka_t *reader;			/* of the progress */
	rd_kafka_queue_t *reader_queue;
	int			pipe[2];
	char		topic[ES_KAFKA_NAME];	/* of the progress */
	char		key[ES_KAFKA_NAME];
	char		first_topic[ES_KAFKA_NAME]; /* of the first lane, if this one
											 * is another */
	char		first_key[ES_KAFKA_NAME];
	int64		epoch;
	int64		start_position; /* of the relay's row */
	uint32		timeline;
	uint64		writer;			/* this process */
	bool		was_fenced;		/* this process was, by somebody */

	/* the relay's thread only */
	bool		started;
	bool		found;			/* started found a record */
	int			filling;		/* the turn that takes events */
	bool		aborting;
	bool		cut;			/* this batch takes no more */
	bool		ended;			/* all that was read is in the batch */
	int64		scanned;
	EsProgress	committed;		/* the last committed record's */
	TimestampTz started_at;
	bool		answered;		/* so far, or we complained */

	/* the helper thread (kafka_thread.c) */
	pthread_t	thread;
	bool		has_thread;
	pthread_mutex_t lock;		/* protects what follows */
	pthread_cond_t asked;
	pthread_cond_t done;
	volatile bool quit;
	volatile bool awaits_first; /* the first lane has yet to begin */
	volatile bool awaits_decision;	/* a transaction in the topic has yet to
									 * end */
	EsKafkaJob	job;			/* what is to be done or was done */
	int			job_turn;
	bool		busy;			/* the thread has yet to do it */
	int64		asked_ms;		/* when it was asked, by a clock of its own */
	volatile bool sending;		/* the events of a small commit are on their
								 * way */
	int64		commit_ms;		/* what the last commit took once all was sent */
	volatile bool finished;		/* done, and the result is not taken yet */
	EsKafkaResult result;
	char		result_text[ES_BROKER_TEXT];
	EsKafkaRecord record;		/* found at the start */

	/* what librdkafka said (kafka_notes.c), in whichever thread */
	uint64		failures;		/* messages that failed */
	rd_kafka_resp_err_t failure;	/* the first one's reason */
	uint64		failed_sequence;	/* the last that failed for it */
	char		failed_topic[ES_KAFKA_NAME];
	bool		has_error;
	char		error[ES_BROKER_TEXT];
	int			log_lines;
	EsKafkaLogLine log[ES_KAFKA_LOG_LINES];
} EsKafkaTxn;

/* kafka_commit.c */
extern bool es_kafka_txn_was_fenced(void);
extern bool es_kafka_txn_begin(EsKafkaTxn *kafka, EsKafkaTurn *turn);
extern bool es_kafka_txn_add_progress(EsKafkaTxn *kafka, EsKafkaTurn *turn);
extern void es_kafka_txn_submit(EsKafkaTxn *kafka);
extern void es_kafka_txn_take_result(EsKafkaTxn *kafka);
extern void es_kafka_txn_undo(EsKafkaTxn *kafka);
extern void es_kafka_txn_fail(EsKafkaTxn *kafka, rd_kafka_t * producer, rd_kafka_error_t *problem);

/* kafka_thread.c: called by the relay's thread */
extern bool es_kafka_thread_start(EsKafkaTxn *kafka);
extern void es_kafka_thread_ask(EsKafkaTxn *kafka, EsKafkaJob job, int turn);
extern bool es_kafka_thread_is_idle(EsKafkaTxn *kafka);
extern bool es_kafka_thread_wait(EsKafkaTxn *kafka, int timeout_ms);
extern void es_kafka_thread_end(EsKafkaTxn *kafka);

/* kafka_notes.c: in any thread, but the last */
extern void es_kafka_listen(EsKafkaTxn *kafka, rd_kafka_queue_t *queue);
extern bool es_kafka_has_failures(EsKafkaTxn *kafka);
extern void es_kafka_note_log(const rd_kafka_t * client, int level, const char *facility, const char *text);
extern void es_kafka_take_notes(EsKafkaTxn *kafka);

#endif							/* EVENTSRC_KAFKA_TXN_H */
