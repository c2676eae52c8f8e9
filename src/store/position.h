/*
 * position.h
 *		Global positions and the safe position, in shared memory.
 *
 * One entry a database holds the highest position given out ("head") and what
 * the sequence eventsrc.position has durably reserved.  One slot a backend
 * holds, while its transaction has positions that are not decided, a number
 * that all of them exceed.  The safe position is the minimum of the head and
 * the slots; every event at or below it is committed and visible to any
 * snapshot taken afterwards, or will never exist.
 */
#ifndef EVENTSRC_POSITION_H
#define EVENTSRC_POSITION_H

#include "eventsrc.h"

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/spin.h"
#include "port/atomics.h"

/* locktag_field4 of our heavyweight locks; PostgreSQL's advisory ones use 1 and 2 */
#define ES_LOCK_RESERVE		0xE500
#define ES_LOCK_STREAM		0xE501

typedef struct EsDatabase
{
	Oid			dboid;			/* InvalidOid: entry is free */
	Oid			sequence;		/* eventsrc.position of that database */
	pg_atomic_uint64 head;		/* highest position given out */
	pg_atomic_uint64 reserved;	/* the sequence stands here, durably */
	pg_atomic_uint32 appenders; /* slots that are published */
	ConditionVariable moved;	/* broadcast when an appender's slot clears */
	pg_atomic_uint64 latest_partition;	/* begin of the latest one with events */
	pg_atomic_uint64 late;		/* transactions that wrote into an earlier one */
	pg_atomic_uint64 moves;		/* counts those broadcasts */
	pg_atomic_uint64 settled;	/* highest safe position that anybody computed */
	pg_atomic_uint64 durable;	/* highest that is known to be flushed */
	pg_atomic_uint64 snapshot_hits; /* states that began at a snapshot */
	pg_atomic_uint64 snapshot_misses;	/* that found none where one should be */

	/* who waits for the safe position to move (store/news.c) */
	ConditionVariable news;
	pg_atomic_uint64 wanted;	/* wake them when it exceeds this */
	pg_atomic_uint32 waiters;
	pg_atomic_uint32 wakes;		/* to be passed on by the woken */

	/* partition maintenance asked of the database's worker */
	pg_atomic_uint32 worker;	/* its pid, 0 if none runs */
	pg_atomic_uint64 maintenance_asked;
	pg_atomic_uint64 maintenance_done;
	ConditionVariable maintained;
	pg_atomic_uint64 month_events;	/* a table that also needs, or 0, ... */
	pg_atomic_uint64 month;		/* ... a partition for this moment */
	pg_atomic_uint32 month_claimed; /* pid of whoever asks for that, or 0 */
} EsDatabase;

extern void es_position_request_shmem(void);	/* shmem_request_hook */
extern void es_position_init_shmem(void);	/* shmem_startup_hook */
extern void es_position_init_backend(void); /* registers the transaction
											 * callbacks */

/* sequence.c */
extern uint64 es_sequence_position(Oid sequence);
extern void es_raise_head(EsDatabase *db, uint64 position);
extern void es_sequence_reserve(EsDatabase *db, uint64 position);

/* position.c */
extern EsDatabase *es_database(void);
extern void es_position_attach_worker(void);
extern void es_position_forget_database(Oid dboid);

extern int64 es_position_allocate(int count);
extern void es_position_import(int64 position);
extern void es_position_at_least(int64 position);
extern TimestampTz es_position_latest_partition(TimestampTz lower);
extern TimestampTz es_position_found_partition(TimestampTz lower);
extern uint64 es_position_late(void);
extern int64 es_position_head(void);
extern int64 es_position_safe(void);
extern int64 es_position_published(void);	/* published.c */
extern int64 es_position_safe_of(EsDatabase *db);
extern bool es_position_appending(void);

/* durable.c */
extern void es_position_make_durable(int64 safe);
extern int64 es_position_readable(void);

#endif							/* EVENTSRC_POSITION_H */
