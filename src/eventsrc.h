/*
 * eventsrc.h
 *		What every part of eventsrc shares: its settings and the names of its
 *		own objects.
 */
#ifndef EVENTSRC_H
#define EVENTSRC_H

#include "postgres.h"

#include "compat.h"
#include "errors.h"

/* the private schema, made by the extension script */
#define ES_PRIVATE_SCHEMA	"eventsrc"

/* settings (eventsrc.c) */
extern char *es_setting_store;
extern char *es_setting_user_id;
extern char *es_setting_correlation_id;
extern char *es_setting_causation_id;
extern char *es_setting_traceparent;
extern int	es_setting_max_databases;
extern int	es_setting_max_relays;
extern int	es_setting_partitions_ahead;
extern int	es_setting_read_durable;

/* values of eventsrc.read_durable */
#define ES_DURABLE_OFF		0
#define ES_DURABLE_LOCAL	1
extern int	es_setting_stream_cache;

/*
 * Objects of the extension in this database, looked up by name once and kept
 * until the catalogs change; an error (ERRCODE_ES_NOT_RUNNING) where the
 * extension is not installed (store/objects.c).
 */
extern Oid	es_private_schema(void);	/* schema eventsrc */
extern Oid	es_public_schema(void); /* the schema of es_append() */
extern Oid	es_event_type(void);	/* composite type es_event */
extern Oid	es_append_trigger(void);	/* function eventsrc.append_trigger() */
extern Oid	es_position_sequence(void); /* sequence eventsrc.position */
extern bool es_extension_present(void); /* no error; needs a transaction */

/* the functions that return events */
typedef enum EsReader
{
	ES_READS_NOTHING,
	ES_READS_STREAM,			/* es_read_stream() */
	ES_READS_ALL				/* es_read_all() */
} EsReader;

extern EsReader es_reader_of(Oid function); /* no error */
extern bool es_appends(Oid function);	/* no error */

#endif							/* EVENTSRC_H */
