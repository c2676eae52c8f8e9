/*
 * append.h
 *		What the files of append/ share.
 */
#ifndef EVENTSRC_APPEND_H
#define EVENTSRC_APPEND_H

#include "store/store.h"

#include "storage/itemptr.h"

/* expected versions other than a number */
#define ES_EXPECT_ANY		PG_INT64_MIN	/* NULL */
#define ES_EXPECT_EXISTS	(-1)


/* one event that is to be written; text and jsonb as varlena pointers */
typedef struct EsNewEvent
{
	text	   *event_type;
	Datum		data;
	bool		has_metadata;
	Datum		metadata;
	text	   *event_id;
	bool		has_occurred_at;
	TimestampTz occurred_at;
	int32		schema_version; /* 0: the last that is registered, or 1 */
} EsNewEvent;

/* who and why, from the settings; NULL where nothing is set */
typedef struct EsContext
{
	text	   *user_id;
	text	   *correlation_id;
	text	   *causation_id;
	text	   *traceparent;
} EsContext;

/* where a stream stands */
typedef struct EsStreamHead
{
	int64		version;		/* 0: it has no events */
	TimestampTz recorded_at;	/* of the last event */
	TimestampTz partition;		/* begin of the one that holds it */
	bool		has_row;		/* in "streams", if that had to be looked up */
	ItemPointerData row;
	bool		seen;			/* the transaction's snapshot sees the last
								 * event */
	bool		closing;		/* the last event is of ES_CLOSING_TYPE */
	uint64		hash;			/* the stream's */
} EsStreamHead;

/* an append to one stream; without events it only checks the version */
typedef struct EsAppend
{
	EsStore    *store;
	text	   *aggregate_type;
	text	   *aggregate_id;
	int64		expected;
	int			nevents;
	EsNewEvent *events;
	bool		ids_given;		/* the caller chose all event ids */
	bool		closes;			/* it is es_close_stream()'s */
	int			entry;			/* of a batch, from 1; 0: it is not in one */
	int64		version;		/* result: of the last event */
	int64		position;
} EsAppend;

/* append.c */
extern void es_check_writable(const char *function);
extern int64 es_expected_version(int64 expected, const char *where);
extern bool es_append_by_executor(EsStore *store);
extern void es_append_run(EsAppend *append);
extern Datum es_append_row(int64 version, int64 position);
extern Datum es_append_result(const EsAppend *append);
extern void es_check_data(Datum data, const char *where);
extern int32 es_schema_version(bool given, int32 version);

/* arbitrate.c */
extern uint64 es_append_count;	/* appends that this backend made */
extern uint64 es_stream_hash(EsStore *store, text *aggregate_type, text *aggregate_id);
extern void es_stream_lock_hash(uint64 hash);
extern uint64 es_stream_lock(EsStore *store, text *aggregate_type, text *aggregate_id);
extern void es_stream_head(EsStore *store, text *aggregate_type, text *aggregate_id,
						   uint64 hash, int64 expected, TimestampTz now, EsStreamHead *head);
extern void es_stream_remember(uint64 hash, int64 version);
extern bool es_is_retry(EsAppend *append, const EsStreamHead *head);
extern void es_raise_conflict(EsAppend *append, int64 actual, const char *hint);
extern void es_check_expected(EsAppend *append, const EsStreamHead *head);
extern bool es_arbitrate(EsAppend *append, const EsStreamHead *head);

/* claims.c */
extern void es_claims_request_shmem(void);
extern void es_claims_init_shmem(void);
extern TransactionId es_claim_of_other(uint64 hash);
extern void es_claims_begin(void);
extern void es_claim(uint64 hash);
extern void es_claims_end(void);

/* heads.c */
extern bool es_head_take(EsStore *store, text *aggregate_type, text *aggregate_id, uint64 hash,
						 EsStreamHead *head);
extern void es_head_keep(EsStore *store, text *aggregate_type, text *aggregate_id,
						 const EsStreamHead *head);
extern void es_heads_request_shmem(void);
extern void es_heads_init_shmem(void);
extern void es_heads_init_backend(void);
extern void es_heads_forget_database(Oid database);

/* stream.c */
extern void es_stream_enter_partition(EsStore *store, text *aggregate_type, text *aggregate_id,
									  const EsStreamHead *head, const EsPartition *partition);
extern void es_stream_record(EsStore *store, text *aggregate_type, text *aggregate_id, bool begins,
							 TimestampTz first_partition, TimestampTz last_partition);
extern bool es_stream_is_closed(EsStore *store, text *aggregate_type, text *aggregate_id);
extern void es_stream_close(EsStore *store, text *aggregate_type, text *aggregate_id);

/* insert.c */
extern void es_insert_direct(EsAppend *append, const EsStreamHead *head, TimestampTz now);

/* import.c */
extern bool es_importing(EsStore *store, int64 version, TimestampTz recorded_at);

/* trigger.c */
extern void es_insert_by_executor(EsAppend *append);

/* known.c */
extern uint64 es_known_resets;
extern bool es_known_holds(uint64 hash);
extern void es_known_forget(void);
extern bool es_known_usable(EsStore *store, Relation partition);
extern bool es_known_find(EsStore *store, uint64 hash, text *aggregate_type, text *aggregate_id,
						  TimestampTz partition, EsStreamHead *head);
extern void es_known_set(EsStore *store, uint64 hash, text *aggregate_type, text *aggregate_id,
						 int64 version, TimestampTz recorded_at, TimestampTz partition);

/* context.c */
extern void es_context_get(EsContext *context);

/* ensure.c */
extern void es_append_install_hooks(void);

/* from.c */
extern void es_append_plan_calls(void);

/* attach.c */
extern void es_attach_install_hook(void);

/* uuid.c */
extern text *es_uuid_v7(void);

#endif							/* EVENTSRC_APPEND_H */
