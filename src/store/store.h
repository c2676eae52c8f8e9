/*
 * store.h
 *		Stores: what a backend knows of a store's tables.
 */
#ifndef EVENTSRC_STORE_H
#define EVENTSRC_STORE_H

#include "eventsrc.h"

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "partitioning/partbounds.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

/* attribute numbers of events, and of the type es_event */
#define ES_ATT_GLOBAL_POSITION	1
#define ES_ATT_AGGREGATE_TYPE	2
#define ES_ATT_AGGREGATE_ID		3
#define ES_ATT_VERSION			4
#define ES_ATT_EVENT_ID			5
#define ES_ATT_EVENT_TYPE		6
#define ES_ATT_SCHEMA_VERSION	7
#define ES_ATT_DATA				8
#define ES_ATT_METADATA			9
#define ES_ATT_USER_ID			10
#define ES_ATT_CORRELATION_ID	11
#define ES_ATT_CAUSATION_ID		12
#define ES_ATT_TRACEPARENT		13
#define ES_ATT_RECORDED_AT		14
#define ES_ATT_OCCURRED_AT		15
#define ES_ATT_TRANSACTION		16
#define ES_NATTS				16

/* types of the events that es_close_stream() and es_undo() append */
#define ES_CLOSING_TYPE		"StreamClosed"
#define ES_RESTORED_TYPE	"StateRestored"

typedef struct EsPartition
{
	Oid			relid;
	TimestampTz lower;			/* inclusive; DT_NOBEGIN for MINVALUE */
	TimestampTz upper;			/* exclusive; DT_NOEND for MAXVALUE */
	Oid			version_index;	/* (aggregate_type, aggregate_id, version) */
	Oid			position_index; /* (global_position) */
	bool		plain_read;		/* an ordinary table, ... */
	bool		plain_append;	/* ... with no columns or triggers of others */
	bool		valid;			/* there was no news of it since */

	/* what bounds.c found out */
	bool		bounded;
	uint64		bounded_at;		/* es_position_late() before */
	int64		first_position; /* 0: there are no events */
	int64		last_position;
	bool		checked;		/* by es_store_bounds() */
} EsPartition;

typedef struct EsStore
{
	NameData	name;			/* the schema's name; hash key */
	bool		valid;
	Oid			schema;
	Oid			events;			/* the partitioned table */
	Oid			streams;
	Oid			streams_index;	/* its primary key */
	Oid			snapshots;
	Oid			aggregates;
	Oid			event_types;
	Oid			upcasters;
	Oid			settings;
	Oid			owner;			/* owner of events */
	bool		plain_read;		/* direct scans may be used (row security
								 * apart) */
	bool		plain_append;	/* direct inserts may be used (row security
								 * apart) */
	int			npartitions;
	EsPartition *partitions;	/* by time */
	uint64		shape;			/* a hash of its partitions */
	uint64		generation;		/* changes whenever the entry is rebuilt */
} EsStore;

/*
 * es_store_open finds the store by name (NULL: the setting eventsrc.store),
 * checks USAGE on its schema, and locks its events table with the given mode
 * until the end of the transaction.  Errors: ERRCODE_ES_UNKNOWN_STORE.
 */
extern EsStore *es_store_open(const char *name, LOCKMODE lockmode);
extern void es_store_refresh(EsStore *store);
extern const char *es_store_name_arg(FunctionCallInfo fcinfo, int argno);

/* es_store_check_acl raises 42501 unless the current user has mode on events. */
extern void es_store_check_acl(EsStore *store, AclMode mode);

/* the store's partition for a moment, made now if it is missing */
extern EsPartition *es_store_partition(EsStore *store, TimestampTz at);

/* index into partitions, or -1 */
extern int	es_store_find_partition(EsStore *store, TimestampTz at);

/* the store that a relation is the events table of, or NULL */
extern EsStore *es_store_of_relation(Oid relid);

/* the descriptor of es_event, blessed, in a long-lived context */
extern TupleDesc es_event_tupdesc(void);

/* bound i of a range-partitioned table, or what stands for a missing one */
extern TimestampTz es_partition_bound(PartitionBoundInfo bounds, int i, TimestampTz without);

/* bounds.c: what positions a partition can hold */
extern int64 es_store_bounds(EsStore *store);
extern bool es_partition_may_hold(EsStore *store, EsPartition *partition, int64 after, int64 upto,
								  int64 *from);

/*
 * The worker's part: makes the partitions that all stores of this database
 * need, in transactions of its own; call it outside any.
 */
extern void es_partitions_maintain(void);

#endif							/* EVENTSRC_STORE_H */
