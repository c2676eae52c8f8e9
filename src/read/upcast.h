/*
 * upcast.h
 *		Upcasters: functions of the store's owner that bring events of old
 *		versions up to date when they are read.
 */
#ifndef EVENTSRC_UPCAST_H
#define EVENTSRC_UPCAST_H

#include "store/store.h"

#include "executor/tuptable.h"

/* the setting eventsrc.upcast */
extern bool es_setting_upcast;

typedef struct EsUpcasters EsUpcasters;

/* the store's upcasters; NULL if it has none or the setting is off */
extern EsUpcasters *es_upcasters_open(EsStore *store);

/*
 * es_upcast returns an event as the upcasters make it: the slot itself if none
 * is for it, else another that is valid until the next call.
 */
extern TupleTableSlot *es_upcast(EsUpcasters *upcasters, TupleTableSlot *slot);

extern void es_upcasters_close(EsUpcasters *upcasters);

/* what snapshots must carry of the upcasters; NULL where none are applied */
extern const char *es_upcasters_identity(EsStore *store);

/* the schemas of the upcasters' functions, each after a comma, for a search_path */
extern const char *es_upcasters_schemas(EsStore *store);

#endif							/* EVENTSRC_UPCAST_H */
