// openapi-generator, go. Arguments: the URL of a node, and the node to transfer leadership to.
package main

import (
	"context"
	"log"
	"os"
	"strconv"

	"ringmaster/api"
)

func check(holds bool, what string) {
	if !holds {
		log.Fatal(what)
	}
}

func done(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	configuration := api.NewConfiguration()
	configuration.Servers = api.ServerConfigurations{{URL: os.Args[1]}}
	client, ctx := api.NewAPIClient(configuration), context.Background()
	to, err := strconv.ParseInt(os.Args[2], 10, 64)
	done(err)

	nodes, _, err := client.ClusterAPI.Nodes(ctx).Execute()
	done(err)
	check(len(nodes.Items) == 3, "three nodes")

	key := "compatibility/go"
	_, _, err = client.SettingsAPI.PutSetting(ctx, key).PutSetting(*api.NewPutSetting(map[string]int{"n": 1})).Execute()
	done(err)
	_, stale, err := client.SettingsAPI.PutSetting(ctx, key).PutSetting(*api.NewPutSetting(2)).IfMatch("\"1\"").Execute()
	check(err != nil && stale != nil && stale.StatusCode == 412, "412")

	action := api.NewActionTransferLeadership(to, "transfer_leadership")
	action.SetGroup(0)
	input := api.NewPlanInput(api.ActionTransferLeadershipAsAction(action))
	plan, _, err := client.PlansAPI.CreatePlan(ctx).PlanInput(*input).Execute()
	done(err)
	check(plan.Action.ActionTransferLeadership != nil && plan.Action.ActionTransferLeadership.To == to, "the plan")
	operation, _, err := client.PlansAPI.ApplyPlan(ctx, plan.Id).Execute()
	done(err)
	check(operation.Plan == plan.Id, "the operation")

	name, owner := "jobs/nightly", "go"
	acquire := api.NewAcquireLock(name, owner, 10000)
	acquire.SetWaitMs(10000)
	lock, _, err := client.LocksAPI.AcquireLock(ctx).AcquireLock(*acquire).Execute()
	done(err)
	shown, _, err := client.LocksAPI.Lock(ctx, name).Execute()
	done(err)
	check(shown.Holders[0].Token == lock.Token, "the holder")
	_, err = client.LocksAPI.ReleaseLock(ctx).ReleaseLock(*api.NewReleaseLock(name, owner, lock.Token)).Execute()
	done(err)

	events, _, err := client.HistoryAPI.Events(ctx).Execute()
	done(err)
	changed := 0
	for _, batch := range events.Items {
		for _, event := range batch.Events {
			if event.EventSettingChanged != nil {
				changed++
			}
		}
	}
	check(changed > 0, "the events")
	upstream, _, err := client.TrafficAPI.Upstream(ctx, "web").Execute()
	done(err)
	hashKey := upstream.GetHashKey()
	check(hashKey.HashKeyHeader != nil && hashKey.HashKeyHeader.Name == "x-user", "the upstream")
}
